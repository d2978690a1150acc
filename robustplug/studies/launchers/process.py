"""A worker process, in which jobs are done one after the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

COMMAND = (sys.executable, "-m", "robustplug.worker")
# Number of bytes kept from the standard error of a process that died.
_KEPT = 4000
# Seconds between two looks at signals.
_ATTENTIVE = 0.2


class WorkerProcess:
    """Start a worker, which lives as long as its jobs succeed and this process lives.

    Args:
        environment: variables to add to those of this process.
        keep_errors: whether to keep its error output for `death`, or else to write it where this process
            writes its own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, keep_errors: bool = False) -> None:
        self._errors = tempfile.TemporaryFile() if keep_errors else None  # noqa: SIM115
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
            # Ctrl-C in a terminal reaches the whole group; the launcher shall receive it and stop the others.
            start_new_session=True,
        )

    def do(self, job: Path) -> str:
        """Let the worker do a job, wait for it, and return "done", "failed" or "stopped"; "" if it died.

        Signals and interrupts of this thread are handled meanwhile.
        """
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(self._ask(job)), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_ATTENTIVE)
        return answers[0]

    def _ask(self, job: Path) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # it has died or was stopped already
            self._process.stdin.write(os.fsencode(job) + b"\n")
            self._process.stdin.flush()
        try:
            # Long lines are no answers.
            return self._process.stdout.readline(64).decode(errors="replace").strip()
        except ValueError:  # closed: it was ended meanwhile
            return ""

    def stop(self) -> None:
        """Ask the worker to stop at the next batch, or to end if it has nothing to do."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """Kill the worker; whoever waits for its answer gets none."""
        self._process.kill()

    def end(self, patience: float | None = None) -> int:
        """Wait until the worker has ended, and return its exit code.

        Args:
            patience: seconds after which it is killed; None for no limit.
        """
        self.stop()
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def death(self) -> tuple[str, str]:
        """Return in a line why a worker ended without an answer, and the end of its error output."""
        code, said = self.end(), ""
        if self._errors is not None:
            with self._errors as errors:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - _KEPT))
                said = errors.read().decode(errors="replace")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no error output")
        return f"its process {how}: {last}", said
