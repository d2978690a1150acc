"""One trial of a tuning: a run folder, from whose own files a tuning that was stopped takes up its trials."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.reporting import Reporter
from ...core.types import EpochReport, Progress, RunInfo
from ...errors import RunError
from ...files.reading import Unreadable, is_file
from ...recipe.errors import RecipeError
from ...recipe.options import Recipe
from ...recipe.write import recipe_to_mapping
from ...runs.choose import differences, stored_recipe
from ...runs.folder import RESULT, holds_run, is_finished, put_aside, writing
from ...runs.history import read_reports
from ...runs.result_file import read_result
from ...runs.stored import open_stored
from ..work import Commands
from .front import Point, is_hopeless
from .kept import FAILURE, Status, Trial, read_failure, write_failure


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
    again: bool,
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
        again: whether to train it once more if it failed.

    Raises:
        RunError: the folder holds another run, or it cannot be written that the trial failed.
        Interrupted, KeyboardInterrupt: a stop signal was received.
    """
    held = holds_run(folder)
    changed = differences(recipe, stored_recipe(folder)) if held else []
    failed = None if again or is_finished(folder) else read_failure(folder, number, values)
    if changed and again and is_file(folder / FAILURE) and not is_finished(folder):
        # An earlier one that failed has not failed this time, and so another one is proposed here.
        with writing(f"in {folder.parent}"):
            put_aside(folder, "failed")
        held, changed = False, []
    if changed:
        raise RunError(
            f"{folder} was made with other options ({'; '.join(changed)}): an earlier trial has ended in "
            "another way since then, or Optuna is of another version. Delete this folder and those after it, "
            "or start the tuning anew with another --out"
        )
    if failed is not None:
        return failed
    with writing(f"in the run folder {folder}"):
        (folder / FAILURE).unlink(missing_ok=True)
    watch, reason, details = Watch(reporter, recipe.train.epochs, earlier), "", ""
    status: Status = "finished"
    reports: Sequence[EpochReport] | None = _finished(folder, reporter)
    if reports is None:
        try:
            commands.train(recipe_to_mapping(recipe), out=folder, resume=held, reporter=watch)
        except _Stopped:
            status = "stopped early"
        except (RunError, RecipeError) as error:
            status, reason = "failed", str(error)
            details = "".join(traceback.format_exception(error))
        reports = watch.reports
    course = {r.epoch + 1: point for r in reports if (point := _point(r.validation)) is not None}
    best = [r.epoch + 1 for r in reports if r.best and r.epoch + 1 in course]
    trial = Trial(
        number,
        values,
        status,
        course,
        next(reversed(best or list(course)), None),
        len(reports),
        len(reports) * each_epoch,
        sum(r.seconds for r in reports),
        reason,
    )
    if status == "failed":
        write_failure(folder, trial, details)
    return trial


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
