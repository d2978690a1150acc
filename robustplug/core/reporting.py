"""The interface through which training and evaluation report their progress."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Protocol

from .types import EpochReport, Progress, RunInfo


class Reporter(Protocol):
    """Receive reports of progress; called on the main process only."""

    def begin(self, run: RunInfo, progress: Progress) -> None:
        """Receive the start of training, or its continuation after a resume."""

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        """Receive the running means of this epoch, at most a few times a second."""

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Receive the report of an epoch."""

    def attack(self, name: str, done: int, total: int) -> None:
        """Receive the progress of an attack of the evaluation, in samples."""

    def warn(self, message: str) -> None:
        """Receive a warning that does not stop the run."""


class Silent:
    """Report nothing."""

    def begin(self, run: RunInfo, progress: Progress) -> None:
        """Ignore it."""

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        """Ignore it."""

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Ignore it."""

    def attack(self, name: str, done: int, total: int) -> None:
        """Ignore it."""

    def warn(self, message: str) -> None:
        """Ignore it."""


class Warns(Silent):
    """Report nothing but warnings, as those of Python: the default of the Python API."""

    def warn(self, message: str) -> None:
        """Issue a Python warning."""
        warnings.warn(message, stacklevel=2)
