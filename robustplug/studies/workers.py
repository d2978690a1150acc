"""Run the jobs of a study side by side, each in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO

from ..core.reporting import Reporter
from ..devices.signals import stop_requests
from ..errors import Interrupted
from .messages import Ended, Failed, Message, pass_on, read_messages
from .work import Failure, Job

VISIBLE = "CUDA_VISIBLE_DEVICES"
COMMAND = (sys.executable, "-m", "robustplug.worker")
# Number of bytes kept from the standard error of a process that died.
_KEPT = 4000
# Number of messages that wait to be passed on; a process that says more waits.
_WAITING = 256


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


@dataclass
class _Worker:
    """A running process, its place, its last message, and the lines that were no messages."""

    number: int
    place: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    reporter: Reporter
    ended: Ended | Failed | None = None
    malformed: int = 0
    first_malformed: str = ""

    def tell_malformed(self) -> None:
        """Warn once of the lines that were no messages."""
        if self.malformed:
            self.reporter.warn(
                f"{self.malformed} lines of its process were no messages and are not believed; the first "
                f"{self.first_malformed}"
            )

    def failure(self) -> Failure | None:
        """Return the failure, or None; an interrupt is not a failure."""
        if isinstance(self.ended, Ended):
            return None
        if isinstance(self.ended, Failed):
            return Failure(self.ended.reason, self.ended.details)
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - _KEPT))
        said = self.errors.read().decode(errors="replace")
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no error output")
        return Failure(f"its process {how}: {last}", said)


_Heard = queue.Queue[tuple[_Worker, Message | str | None]]


def run_side_by_side(
    jobs: MutableMapping[int, Job],
    where: Sequence[Mapping[str, str]],
    start: Callable[[int], Reporter],
    done: Callable[[int, Failure | None], None],
    ready: Callable[[int], bool] = lambda number: True,
) -> None:
    """Run jobs in processes, as many at a time as there are places.

    Args:
        jobs: jobs by number, in the order in which they start; one that starts is taken out. `done` may take
            out those that cannot start any more.
        where: environment variables of each place, added to those of this process.
        start: receives the number of a job that starts, and returns the reporter of its progress.
        done: receives the number of a job that ended, and its failure, if any.
        ready: whether a job can start; one that cannot waits for a job that runs.

    Raises:
        Interrupted: Ctrl-C or SIGTERM was received; every process has stopped at its next batch. A second
            signal kills them.
    """
    heard: _Heard = queue.Queue(_WAITING)
    free = list(range(len(where)))
    running: list[_Worker] = []
    with stop_requests() as stop, _killed_at_the_end(running):
        asked = False
        while running or (jobs and not asked):
            while free and not asked and (number := next(filter(ready, jobs), None)) is not None:
                job, place = jobs.pop(number), free.pop(0)
                running.append(_started(number, place, job, where[place], start(number), heard))
            if stop.signal and not asked:
                asked = True
                for worker in running:
                    _close(worker)
            with contextlib.suppress(queue.Empty):
                # With a timeout, so that signals are handled on every platform.
                worker, message = heard.get(timeout=0.2)
                if message is None:
                    worker.process.wait()
                    worker.tell_malformed()
                    _close(worker)
                    running.remove(worker)
                    free.append(worker.place)
                    if not (isinstance(worker.ended, Ended) and worker.ended.kind == "stopped"):
                        done(worker.number, worker.failure())
                    worker.errors.close()
                elif isinstance(message, str):
                    worker.malformed += 1
                    worker.first_malformed = worker.first_malformed or message
                elif isinstance(message, Ended | Failed):
                    worker.ended = message
                else:
                    pass_on(message, worker.reporter)
        if asked:
            raise Interrupted("stopped", 128 + stop.signal)


@contextlib.contextmanager
def _killed_at_the_end(running: Sequence[_Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.wait()


def _started(
    number: int,
    place: int,
    job: Job,
    environment: Mapping[str, str],
    reporter: Reporter,
    heard: _Heard,
) -> _Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115, closed when the worker has ended
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **environment},
        # Ctrl-C in a terminal reaches the whole group; only the study shall receive it and stop the others.
        start_new_session=True,
    )
    worker = _Worker(number, place, process, errors, reporter)
    threading.Thread(target=_listen, args=(worker, heard), daemon=True).start()
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has died already, and its error output gives the reason
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        process.stdin.flush()
    return worker


def _listen(worker: _Worker, heard: _Heard) -> None:
    assert worker.process.stdout is not None
    with worker.process.stdout as lines:
        for message in read_messages(lines):
            heard.put((worker, message))
    heard.put((worker, None))


def _close(worker: _Worker) -> None:
    assert worker.process.stdin is not None
    with contextlib.suppress(OSError):
        worker.process.stdin.close()
