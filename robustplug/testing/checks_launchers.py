"""Checks of launchers, with jobs that ask for nothing."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from ..errors import RunError
from ..studies.launchers.jobs import JobFiles
from ..studies.launchers.protocol import Launcher
from ..studies.work import Job
from .bench import Subject, require

# Seconds that jobs without work may take.
_PATIENCE = 240.0


@contextlib.contextmanager
def _opened(subject: Subject) -> Iterator[tuple[Launcher, JobFiles]]:
    with tempfile.TemporaryDirectory() as folder:
        files = JobFiles(Path(folder))
        try:
            launcher: Launcher = subject.build(folder=files.folder, gpus=False)
        except RunError as error:
            raise SkipTest(str(error)) from error
        try:
            yield launcher, files
        except RunError as error:
            raise SkipTest(str(error)) from error  # there is no such cluster
        finally:
            launcher.close()


def launcher_carries_out_jobs(subject: Subject) -> None:
    """Carry out every job, in a worker that says so, and know when each has ended."""
    with _opened(subject) as (launcher, files):
        names = ["a", "b", "c"]
        none = Job({}, str(files.folder), False, False, None, False, "cpu")
        numbers = launcher.submit([files.write(name, none) for name in names])
        require(len({*numbers}) == len(numbers), f"several jobs have one number: {list(numbers)}")
        require(len(numbers) == len(names), f"{len(numbers)} of {len(names)} jobs were taken")
        end = time.monotonic() + _PATIENCE
        states = launcher.states(numbers)
        while any(each.name != "ended" for each in states.values()):
            require(time.monotonic() < end, f"the jobs have not ended: {states}")
            time.sleep(min(launcher.pause, 0.5))
            states = launcher.states(numbers)
        for name in names:
            messages = files.messages(name)
            said = [message.kind for message in messages.read()]
            require(said == ["done"], f"the worker of job {name} said {said}, not that it is done")


def launcher_ends_what_is_cancelled(subject: Subject) -> None:
    """End what is cancelled, and take a number that it does not know for a job that has ended."""
    with _opened(subject) as (launcher, files):
        none = Job({}, str(files.folder), False, False, None, False, "cpu")
        numbers = [*launcher.submit([files.write(name, none) for name in ("a", "b", "c", "d")])]
        launcher.cancel(numbers)
        end = time.monotonic() + _PATIENCE
        while any(each.name != "ended" for each in launcher.states(numbers).values()):
            require(time.monotonic() < end, "cancelled jobs do not end")
            time.sleep(min(launcher.pause, 0.5))
        launcher.cancel(numbers)
        states = launcher.states(["987654321"])
        require(states["987654321"].name == "ended", "a number that is not known has not ended")


LAUNCHER_CHECKS = (launcher_carries_out_jobs, launcher_ends_what_is_cancelled)
