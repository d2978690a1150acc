"""What runs on the cluster: the actor that starts jobs, and the task that does one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from robustplug.api import WorkerProcess, job_ended

# Seconds that an actor without work stays, to be asked how the jobs ended.
_STAYS = 600.0
_PAUSE = 0.2
# Seconds in which Ray notices that a node is gone, and ends its tasks; they start again elsewhere.
_NODE_GOES = 5.0


class Queue:
    """Start jobs as tasks, some at a time, and know how far each is.

    When its node dies, Ray makes it anew elsewhere, from the same arguments; what is done is left out.

    Args:
        jobs: paths of the job files.
        task: what a task asks of Ray.
        at_a_time: largest number of tasks at a time.
    """

    def __init__(self, jobs: Sequence[str], task: Mapping[str, Any], at_a_time: int) -> None:
        self._lock, self._at_a_time = threading.Lock(), at_a_time
        self._task = ray.remote(do_job).options(**task)
        self._states = dict.fromkeys(range(len(jobs)), ("queued", ""))
        self._tasks: dict[Any, int] = {}
        self._waiting: deque[tuple[int, str]] = deque()
        for number, job in enumerate(jobs):
            if job_ended(Path(job)):
                self._states[number] = ("ended", "")
            else:
                self._waiting.append((number, job))
        threading.Thread(target=self._serve, daemon=True).start()

    def states(self) -> dict[int, tuple[str, str]]:
        """Return state and reason of each job."""
        return dict(self._states)

    def started(self, number: int) -> None:
        """Note that a task has started."""
        if self._states[number][0] == "queued":
            self._states[number] = ("running", "")

    def cancel(self, numbers: Sequence[int]) -> None:
        """Withdraw what waits, and interrupt what runs."""
        with self._lock:
            for number, job in list(self._waiting):
                if number in numbers:
                    self._waiting.remove((number, job))
                    self._states[number] = ("ended", "")
            for task, number in self._tasks.items():
                if number in numbers:
                    ray.cancel(task, force=False)

    def _serve(self) -> None:
        me = ray.get_runtime_context().current_actor
        while self._waiting or self._tasks:
            with self._lock:
                while self._waiting and len(self._tasks) < self._at_a_time:
                    number, job = self._waiting.popleft()
                    self._tasks[self._task.remote(job, me, number)] = number
            ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=_PAUSE)
            for task in ready:
                reason = ""
                try:
                    ray.get(task)
                except ray.exceptions.TaskCancelledError:
                    pass
                except Exception as error:
                    lines = [line for line in str(error).splitlines() if line.strip()]
                    reason = f"its Ray task ended: {lines[-1].strip() if lines else type(error).__name__}"
                with self._lock:
                    self._states[self._tasks.pop(task)] = ("ended", reason)
        time.sleep(_STAYS)
        ray.kill(me)


def do_job(job: str, queue: Any, number: int) -> None:
    """Do a job in a worker process; when the task is cancelled, the worker stops at its next batch.

    Raises:
        RuntimeError: the worker died.
    """
    queue.started.remote(number)
    worker = WorkerProcess(keep_errors=True)
    try:
        answer = worker.do(Path(job))
    except KeyboardInterrupt:
        worker.end()
        return
    if not answer:
        # A worker that dies alone is a failure of its run. One that dies with its node is not: this process
        # may live a little longer, and must not answer.
        time.sleep(_NODE_GOES)
        raise RuntimeError(worker.death()[0])
    worker.end()
