"""The worker process, which does jobs of a study. A launcher starts it; see `robustplug.studies.launchers`.

It reads the path of a job from each line of its standard input, does the job, writes its messages beside it,
and answers with a line on its standard output. When the input ends, because the launcher has stopped or died,
or when it is sent SIGTERM, SIGUSR1 or SIGUSR2, it stops as on Ctrl-C.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .devices.signals import stop_once
from .errors import Interrupted, RunError
from .files.reading import Unreadable, read_bytes
from .runs.lock import locked
from .studies.launchers.jobs import messages_file
from .studies.messages import Messages, Relay
from .studies.messages import Part as PartDone
from .studies.parts import Part, parse_job
from .studies.work import Commands, carry_out

# Bytes of a job, and of the path of one.
_LONGEST, _LONGEST_PATH = 16 * 2**20, 2**16
# Seconds between two messages of batches.
_PAUSE = 2.0
# Seconds that a job that starts again waits for the lock of its run.
_LOOKS = 60


def main() -> None:
    """Do the jobs whose paths are the lines of the input."""
    # The output of libraries must not mix with the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as answers:
        os.dup2(2, 1)
        stop_once()
        jobs: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        working = threading.Event()
        threading.Thread(target=_listen, args=(jobs, working), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            while (file := jobs.get()) is not None:
                working.set()
                answer = _do(file)
                working.clear()
                with contextlib.suppress(OSError):
                    answers.write(f"{answer}\n")
                # What failed may have left the process in any state.
                if answer != "done":
                    sys.exit(130 if answer == "stopped" else 1)
            return
        sys.exit(130)


def _do(file: Path) -> str:
    """Do a job, and return "done", "failed" or "stopped"."""
    messages = Messages(messages_file(file))
    said = list(messages.read())
    with messages_file(file).open("ab", buffering=0) as lines:
        if lines.tell():
            # A process that was killed may have left the beginning of a line.
            lines.write(b"\n")

        def write(line: str) -> None:
            # A run does not end because somebody could not be told of it.
            with contextlib.suppress(OSError):
                lines.write(line.encode())

        relay = Relay(write, _PAUSE)
        done = {message.name for message in said if isinstance(message, PartDone)}
        try:
            try:
                job = parse_job(read_bytes(file, _LONGEST))
                os.chdir(job.directory or ".")
                if said:
                    _wait_for(Path(job.folder))
            except (Unreadable, OSError) as error:
                relay.send("failed", reason=_not_there(file, error), details="")
                return "failed"
            if isinstance(job, Part):
                failure = job.carry_out(relay)
            else:
                failure = carry_out(job, _COMMANDS, relay, done, lambda part: relay.send("part", name=part))
        except (Interrupted, KeyboardInterrupt):
            relay.send("stopped")
            return "stopped"
        if failure is not None:
            relay.send("failed", reason=failure.reason, details=failure.details)
            return "failed"
        relay.send("done")
        return "done"


def _not_there(file: Path, error: Exception) -> str:
    if isinstance(error, Unreadable):
        return f"the job {file} {error}"
    return f"{error.strerror}: {error.filename}; every node must see the files of the study at the same paths"  # type: ignore[attr-defined]


def _wait_for(folder: Path) -> None:
    """Wait for the lock of a run: the process that was at work before may not have ended yet."""
    for _ in range(_LOOKS):
        with contextlib.suppress(RunError), locked(folder):
            return
        time.sleep(1.0)


def _late(name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        from . import run

        return getattr(run, name)(*arguments, **options)

    return call


# Importing what trains takes longer than many a job.
_COMMANDS = Commands(_late("train"), _late("evaluate"), _late("audit"))


def _listen(jobs: queue.SimpleQueue[Path | None], working: threading.Event) -> None:
    # Unbuffered: a thread that waits in a buffered reader would block the exit of the process.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        while line := lines.readline(_LONGEST_PATH):
            jobs.put(Path(os.fsdecode(line.removesuffix(b"\n"))))
    jobs.put(None)
    if working.is_set():
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
