"""What the engine tells a person while it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .types import EpochReport, Progress, RunInfo


class Reporter(Protocol):
    """Hear of progress; called on the main process only."""

    def begin(self, run: RunInfo, progress: Progress) -> None:
        """Hear that training starts or goes on."""

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        """Hear the running means of this epoch, at most a few times a second."""

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Hear what an epoch brought."""

    def attack(self, name: str, done: int, total: int) -> None:
        """Hear how far an attack of the evaluation is, in samples."""

    def warn(self, message: str) -> None:
        """Hear of something that does not stop the run."""


class Silent:
    """Say nothing."""

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
