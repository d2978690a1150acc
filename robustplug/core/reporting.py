"""The interface through which training and evaluation report their progress, and the numbers of a result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

from .measures import Quantity
from .types import AttackResult, EpochReport, Progress, Result, RunInfo


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


def headlines(result: Result) -> list[Quantity]:
    """Return the measures that are shown in the place of the accuracy; none if that is what is shown."""
    said = [Quantity(**each) for each in result.meta.get("quantities", ())]
    return [quantity for quantity in said if quantity.headline]


def stated(row: AttackResult, shown: Sequence[Quantity]) -> dict[str, float]:
    """Return the numbers by which a row is read, by name: "" for its accuracy, or else its measures.

    Args:
        row: a row that was run and is valid.
        shown: the `headlines` of its result.
    """
    if not shown:
        return {"": row.accuracy}
    known = {quantity.name: row.measures.get(quantity.name) for quantity in shown}
    means = {name: measure.mean for name, measure in known.items() if measure is not None and measure.count}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def result_numbers(result: Result) -> dict[str, float]:
    """Return the numbers of an evaluation for a log: "test/pgd", or "test/seq2sick/BLEU" for a measure."""
    shown = headlines(result)
    return {
        "/".join(filter(None, (result.split, row.name, name))): value
        for row in result.attacks
        if not row.skipped and (shown or row.bound != "none")
        for name, value in stated(row, shown).items()
    }


def nothing_stated(result: Result) -> str:
    """Return why no attack of a result states a number, as a sentence; "" if one does, or there is none."""
    rows = result.attacks[1:]
    if not rows or not all(row.skipped for row in rows):
        return ""
    return f"no attack states a number: {rows[0].name}: {rows[0].skipped}"
