"""The launcher of this machine: worker processes, each on its own GPU if there are several."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .process import WorkerProcess
from .protocol import JobState

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Seconds that a worker without a job has to end.
_PATIENCE = 5.0


def places(processes: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return the environment variables to set for each of the simultaneous processes.

    Args:
        processes: number of simultaneous processes; None for one per GPU, or one without GPUs.
        gpus: names of the GPUs, as in CUDA_VISIBLE_DEVICES; they are assigned in turn.
    """
    count = max(1, len(gpus)) if processes is None else processes
    return [{VISIBLE: gpus[number % len(gpus)]} if gpus else {} for number in range(count)]


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


class _Options(Protocol):
    @property
    def processes(self) -> int | None: ...


class Local:
    """Do jobs in processes of this machine, which end when this process ends.

    A process does one job after the other, since starting one takes longer than many a small run. After a job
    that fails, a new one is started.

    Args:
        options: number of processes.
        folder: the folder of the jobs.
        gpus: whether jobs may use a GPU.
    """

    lasting = False
    pause = 0.1

    def __init__(self, options: _Options, *, folder: Path, gpus: bool) -> None:
        self._where = places(options.processes, visible_gpus() if gpus else [])
        self.places = len(self._where)
        self._numbers = itertools.count()
        self._lock, self._closed = threading.Lock(), False
        self._queue: deque[tuple[str, Path]] = deque()
        self._states: dict[str, JobState] = {}
        self._at_work: dict[str, WorkerProcess] = {}
        self._serving = set[int]()
        self._threads: list[threading.Thread] = []

    def submit(self, jobs: Sequence[Path]) -> Sequence[str]:
        """Submit jobs."""
        numbers = [str(next(self._numbers)) for _ in jobs]
        with self._lock:
            self._states |= {number: JobState("queued") for number in numbers}
            self._queue += zip(numbers, jobs, strict=True)
            free = [place for place in range(self.places) if place not in self._serving]
            free = free[: len(self._queue)]
            self._serving.update(free)
        for place in free:
            self._threads.append(threading.Thread(target=self._serve, args=(place,), daemon=True))
            self._threads[-1].start()
        return numbers

    def states(self, numbers: Sequence[str]) -> Mapping[str, JobState]:
        """Return the state of each job."""
        return {number: self._states.get(number, JobState("ended")) for number in numbers}

    def cancel(self, numbers: Sequence[str]) -> None:
        """Withdraw what is queued, and stop what is running at its next batch."""
        with self._lock:
            withdrawn = {number for number, _ in self._queue} & {*numbers}
            self._queue = deque(each for each in self._queue if each[0] not in withdrawn)
            self._states |= {number: JobState("ended") for number in withdrawn}
            for number in self._at_work.keys() & {*numbers}:
                self._at_work[number].stop()

    def close(self) -> None:
        """Kill what is running."""
        with self._lock:
            self._closed = True
            for worker in self._at_work.values():
                worker.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self, place: int) -> None:
        """Do jobs of the queue in the process of a place, until none is left."""
        worker: WorkerProcess | None = None
        while (taken := self._take(place, worker)) is not None:
            number, job, worker = taken
            answer = worker.do(job)
            with self._lock:
                del self._at_work[number]
            reason, details = ("", "") if answer else worker.death()
            self._states[number] = JobState("ended", reason, details)
            if answer != "done":
                worker.end()
                worker = None
        if worker is not None:
            worker.end(_PATIENCE)

    def _take(self, place: int, worker: WorkerProcess | None) -> tuple[str, Path, WorkerProcess] | None:
        with self._lock:
            while self._queue and not self._closed:
                number, job = self._queue.popleft()
                try:
                    worker = worker or WorkerProcess(self._where[place], keep_errors=True)
                except OSError as error:
                    self._states[number] = JobState("ended", f"its process cannot be started: {error}")
                    continue
                self._states[number], self._at_work[number] = JobState("running"), worker
                return number, job, worker
            # Under the lock: whoever submits from now on starts a thread for the place anew.
            self._serving.discard(place)
        return None
