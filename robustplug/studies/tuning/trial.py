"""One trial of a tuning: a run folder, from whose own files a tuning that was stopped takes up its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...core.reporting import Reporter
from ...core.types import EpochReport, Progress, RunInfo
from ...errors import RunError
from ...files.reading import Unreadable
from ...recipe.options import Recipe
from ...recipe.write import recipe_to_mapping
from ...runs.choose import differences, stored_recipe
from ...runs.folder import RESULT, holds_run, put_aside, writing
from ...runs.history import read_reports
from ...runs.result_file import read_result
from ...runs.stored import open_stored
from ..work import Commands
from .front import Point, is_hopeless

Status = Literal["finished", "stopped early", "failed"]


@dataclass(frozen=True)
class Trial:
    """Hold a trial that has ended.

    Attributes:
        number: number of the trial, from 0.
        values: values of the searched options, by dotted key.
        status: how it ended.
        course: (clean, robust) validation accuracy by number of epochs.
        selected: number of epochs at the checkpoint that `train.select` chose; None for none.
        epochs: epochs that were trained.
        passes: forward and backward passes of a training sample; 0 if unknown.
        seconds: training time.
        reason: why it failed.
    """

    number: int
    values: Mapping[str, Any]
    status: Status
    course: Mapping[int, Point] = field(default_factory=dict)
    selected: int | None = None
    epochs: int = 0
    passes: float = 0.0
    seconds: float = 0.0
    reason: str = ""

    @property
    def point(self) -> Point | None:
        """Return the accuracies of the selected checkpoint; None for a trial that did not finish."""
        return None if self.status != "finished" or self.selected is None else self.course[self.selected]

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON."""
        point = self.point
        return {
            "number": self.number,
            "values": dict(self.values),
            "status": self.status,
            "clean": None if point is None else point[0],
            "robust": None if point is None else point[1],
            "epochs": self.epochs,
            "passes": self.passes,
            "seconds": self.seconds,
            "reason": self.reason,
        }


class _Stopped(Exception):
    """Leave the training of a trial that is not worth more epochs."""


class Watch:
    """Collect the epochs of a trial, and stop it where it is hopeless.

    Args:
        reporter: receives everything, too.
        epochs: epochs of a whole trial.
        earlier: the trials before.
    """

    def __init__(self, reporter: Reporter, epochs: int, earlier: Sequence[Trial]) -> None:
        self._reporter, self._epochs, self._earlier = reporter, epochs, earlier
        self.reports: list[EpochReport] = []

    def begin(self, run: RunInfo, progress: Progress) -> None:
        """Pass it on; a run that resumes goes through its earlier epochs, as in the first process."""
        self._reporter.begin(run, progress)
        if run.resumed_at_epoch:
            folder = Path(run.folder)
            for report in read_reports(folder, open_stored(folder).manifest.run, run.resumed_at_epoch)[0]:
                self._see(report)

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        """Pass it on."""
        self._reporter.batch(progress, means)

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Pass it on, and decide."""
        self._reporter.epoch(report, epochs)
        self._see(report)

    def attack(self, name: str, done: int, total: int) -> None:
        """Pass it on."""
        self._reporter.attack(name, done, total)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._reporter.warn(message)

    def _see(self, report: EpochReport) -> None:
        self.reports.append(report)
        trained, point = report.epoch + 1, _point(report.validation)
        others = [each.course[trained] for each in self._earlier if trained in each.course]
        if point is not None and trained < self._epochs and is_hopeless(point, others):
            raise _Stopped


def _point(validation: Mapping[str, float]) -> Point | None:
    if not {"clean", "robust"} <= validation.keys():
        return None
    return validation["clean"], validation["robust"]


def carry_out(
    number: int,
    values: Mapping[str, Any],
    recipe: Recipe,
    each_epoch: float,
    folder: Path,
    earlier: Sequence[Trial],
    commands: Commands,
    reporter: Reporter,
) -> Trial:
    """Train a trial, or take it from its folder, which is checked as every run folder is.

    Args:
        number: number of the trial.
        values: values of the searched options, by dotted key.
        recipe: its recipe.
        each_epoch: passes of a training sample in an epoch; 0 if unknown.
        folder: its run folder.
        earlier: the trials before, which decide whether it is stopped early.
        commands: the functions that train and evaluate.
        reporter: receives progress.

    Raises:
        RunError: the folder holds another run.
        Interrupted, KeyboardInterrupt: a stop signal was received.
    """
    held = holds_run(folder)
    if held and (changed := differences(recipe, stored_recipe(folder))):
        raise RunError(
            f"{folder} was made with other options ({'; '.join(changed)}), or by another version of Optuna: "
            "start the tuning anew with another --out"
        )
    watch, status, reason = Watch(reporter, recipe.train.epochs, earlier), "finished", ""
    reports: Sequence[EpochReport] | None = _finished(folder, reporter)
    if reports is None:
        try:
            commands.train(recipe_to_mapping(recipe), out=folder, resume=held, reporter=watch)
        except _Stopped:
            status = "stopped early"
        except RunError as error:
            status, reason = "failed", str(error)
        reports = watch.reports
    course = {r.epoch + 1: point for r in reports if (point := _point(r.validation)) is not None}
    best = [r.epoch + 1 for r in reports if r.best and r.epoch + 1 in course]
    return Trial(
        number,
        values,
        status,  # type: ignore[arg-type]
        course,
        next(reversed(best or list(course)), None),
        len(reports),
        len(reports) * each_epoch,
        sum(r.seconds for r in reports),
        reason,
    )


def _finished(folder: Path, reporter: Reporter) -> list[EpochReport] | None:
    """Return the epochs of a finished run; None if it is not finished, or its result cannot be believed."""
    try:
        body = read_result(folder / RESULT, folder).body
    except FileNotFoundError:
        return None
    except Unreadable as error:
        reporter.warn(f"{folder / RESULT} {error}; it is made again")
        with writing(f"in the run folder {folder}"):
            put_aside(folder / RESULT, "damaged")
        return None
    return [EpochReport(**report) for report in body["history"]]
