"""Run studies: each cell and seed has a run folder, and finished runs are not repeated."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.reporting import Reporter, Silent
from ..errors import Interrupted, RunError
from ..evaluation.audit.audit import NAME as AUDIT
from ..files.reading import Unreadable, read_json
from ..recipe.write import recipe_to_mapping
from ..runs.folder import (
    RESULT,
    holds_run,
    is_finished,
    put_aside,
    refuse_occupied,
    write_json,
    write_text,
    writing,
)
from ..runs.lock import locked
from ..runs.result_file import seal_result
from .outcome import Outcome, Run, asked_of, look, runs_of
from .work import Commands, Failure, Job, carry_out
from .workers import places, run_side_by_side, visible_gpus

if TYPE_CHECKING:
    from ..recipe.study import Study

FORMAT = 1
STUDIES, FAILURE = Path("studies"), "failure.txt"
# What a study leaves in its folder, also when it is killed.
_OWN = re.compile(
    r"runs|report|result\.json|result-damaged(-\d+)?\.json|\.lock(\.exists)?|\.result\.json\.\d+\.tmp"
)


class StudyReporter(Protocol):
    """Receive the progress of a study; several runs may be active at a time."""

    def plan(self, outcomes: Sequence[Outcome], places: int) -> None:
        """Receive the state of each run, and the number of simultaneous runs, before any run starts."""

    def start(self, number: int, name: str) -> Reporter:
        """Receive the start of a run, and return the reporter of its progress; numbers start at 1."""

    def done(self, number: int, outcome: Outcome) -> None:
        """Receive the outcome of a run."""


class SilentStudy:
    """Report nothing."""

    def plan(self, outcomes: Sequence[Outcome], places: int) -> None:
        """Ignore it."""

    def start(self, number: int, name: str) -> Reporter:
        """Ignore it."""
        return Silent()

    def done(self, number: int, outcome: Outcome) -> None:
        """Ignore it."""


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation (None for fewer than two) and number of some values."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
    }


def study_to_json(study: Study, folder: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the result of a study as JSON; folders are relative to that of the study."""
    by_cell: dict[str, list[Outcome]] = {cell.slug: [] for cell in study.cells}
    for outcome in outcomes:
        by_cell[outcome.run.cell.slug].append(outcome)
    rows = list(dict.fromkeys(name for outcome in outcomes for name in outcome.accuracies))
    measures = list(dict.fromkeys(name for outcome in outcomes for name in outcome.measures))
    return {
        "format": FORMAT,
        "name": study.name,
        "base": study.base,
        "axes": [
            {"name": axis.name, "labels": list(axis.labels), "numbers": axis.numbers} for axis in study.axes
        ],
        "seeds": list(study.seeds),
        "suite": study.suite_name or None,
        "rows": rows,
        "measures": measures,
        "cells": [
            {
                "name": cell.name,
                "labels": {axis.name: label for axis, label in zip(study.axes, cell.labels, strict=True)},
                "runs": [
                    {
                        "seed": outcome.run.seed,
                        "folder": outcome.run.folder.relative_to(folder).as_posix(),
                        "status": outcome.status,
                        "reason": outcome.reason,
                        "seconds": outcome.seconds,
                        "accuracies": dict(outcome.accuracies),
                        "measures": dict(outcome.measures),
                        "audit": outcome.audit,
                    }
                    for outcome in by_cell[cell.slug]
                ],
                "rows": {
                    name: spread_of([o.accuracies[name] for o in by_cell[cell.slug] if name in o.accuracies])
                    for name in rows
                },
                "measures": {
                    name: spread_of([o.measures[name] for o in by_cell[cell.slug] if name in o.measures])
                    for name in measures
                },
                "threats": {name: threat for o in by_cell[cell.slug] for name, threat in o.threats.items()},
            }
            for cell in study.cells
        ],
    }


def run_study(
    study: Study,
    folder: Path,
    commands: Commands,
    reporter: StudyReporter,
    processes: int | None = None,
    observers: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the unfinished runs of a study, and write result.json after every run.

    Args:
        study: a study whose cells have been checked.
        folder: the study folder.
        commands: the functions that train, evaluate and audit.
        reporter: receives progress.
        processes: number of simultaneous runs, each in its own process, on its own GPU if there are several;
            None for the number of GPUs. With one, the runs take place in this process.
        observers: names of the plugins that observe the runs.

    Returns:
        The content of result.json; failed runs have a reason.

    Raises:
        RunError: the study was started in several processes, the folder cannot be written, or another
            process runs a study in it.
        Interrupted: Ctrl-C or SIGTERM was received; the same command resumes the study.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            "a study must be started in one process: leave out torchrun and accelerate launch; --processes "
            "sets the number of simultaneous runs"
        )
    refuse_foreign(folder)
    with locked(folder):
        _put_damaged_aside(folder)
        outcomes = [look(study, run) for run in runs_of(study, folder)]
        jobs = {
            at: _job(study, each, observers) for at, each in enumerate(outcomes) if each.status != "finished"
        }
        on_gpus = any(each.run.recipe.train.device in ("auto", "cuda") for each in outcomes)
        where = places(processes, visible_gpus() if on_gpus else [])[: max(1, len(jobs))]
        reporter.plan(outcomes, len(where))

        def start(at: int) -> Reporter:
            before = outcomes[at]
            listener = reporter.start(at + 1, before.run.name)
            if before.status in ("damaged", "trained") and before.reason:
                listener.warn(before.reason)
            if before.status == "damaged":
                with writing(f"in the run folder {before.run.folder}"):
                    put_aside(before.run.folder / RESULT, "damaged")
            return listener

        def done(at: int, failure: Failure | None) -> None:
            outcomes[at] = _ended(study, outcomes[at].run, failure)
            _write(study, folder, outcomes)
            reporter.done(at + 1, outcomes[at])
            if not is_finished(outcomes[at].run.folder):
                give_up_on_those_after(outcomes[at])

        def give_up_on_those_after(lost: Outcome) -> None:
            why = f"starts from {lost.run.name}, which is {lost.status}: {lost.reason}"
            for at, each in enumerate(outcomes):
                if at in work and lost.run.folder in each.run.needs:
                    del work[at]
                    start(at)
                    done(at, Failure(why, ""))

        work = {at: job for at, job in jobs.items() if job is not None}
        with _going_on():
            for at in sorted(jobs.keys() - work.keys()):
                start(at)
                done(at, Failure(outcomes[at].reason, ""))
                give_up_on_those_after(outcomes[at])
            if len(where) > 1:
                run_side_by_side(work, where, start, done, lambda at: _can_start(outcomes[at].run))
            else:
                while work:
                    at = next(iter(work))
                    job = work.pop(at)
                    done(at, carry_out(job, commands, start(at)))
        return _write(study, folder, outcomes)


def _can_start(run: Run) -> bool:
    """Return whether the runs that a run starts from have been trained."""
    return all(is_finished(folder) for folder in run.needs)


@contextlib.contextmanager
def _going_on() -> Iterator[None]:
    """Add to an interrupt how to resume."""
    message = "stopped; finished work is kept: give the same command again to resume"
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(message, stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        raise Interrupted(message, 130) from stop


def _write(study: Study, folder: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    body = study_to_json(study, folder, outcomes)
    with writing(f"the result of the study in {folder}"):
        write_json(folder / RESULT, seal_result(body, "result"))
    return body


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds anything but a study.

    Raises:
        RunError: it holds a run, files that no study wrote, or cannot be read.
    """
    if holds_run(folder):
        raise RunError(f"{folder} is a run folder: choose another folder for the study with --out")
    with writing(f"the folder {folder}", "Choose another with --out."):
        names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    others = [name for name in names if not _OWN.fullmatch(name)]
    body: Any = None
    with contextlib.suppress(FileNotFoundError, Unreadable):
        body = read_json(folder / RESULT)
        if not isinstance(body, dict) or "cells" not in body:
            others.insert(0, RESULT)
    if others and (body is None or others[0] == RESULT):
        some = ", ".join(others[:3]) + (", …" if others[3:] else "")
        raise RunError(
            f"{folder} is not empty and holds no study ({some}), so nothing is written there: choose a new "
            "folder with --out"
        )


def _put_damaged_aside(folder: Path) -> None:
    """Keep a result of the study that cannot be read beside the new one."""
    try:
        read_json(folder / RESULT)
    except FileNotFoundError:
        return
    except Unreadable:
        with writing(f"the result of the study in {folder}"):
            put_aside(folder / RESULT, "damaged")


def _job(study: Study, before: Outcome, observers: Sequence[str]) -> Job | None:
    """Return the remaining work of a run; None if its folder holds another run, or one that stays failed."""
    run, trained = before.run, before.status in ("trained", "failed")
    if before.status == "another recipe" or (before.status == "failed" and not before.lacks):
        return None
    lacks = before.lacks if trained else asked_of(study)
    return Job(
        recipe_to_mapping(run.recipe),
        str(run.folder),
        train=not trained,
        resume=before.status in ("unfinished", "damaged"),
        suite=str(study.suite) if study.suite and study.suite_name in lacks else None,
        audit=AUDIT in lacks,
        device=run.recipe.train.device,
        observers=list(observers),
    )


def _ended(study: Study, run: Run, failure: Failure | None) -> Outcome:
    """Return the state of a run that ended; if it failed, keep the traceback and its results so far."""
    kept = look(study, run)
    if failure is None:
        with contextlib.suppress(OSError):
            (run.folder / FAILURE).unlink(missing_ok=True)
        return kept
    if failure.details:
        # The folder of a run that did not start may hold files of somebody else.
        with contextlib.suppress(OSError, RunError):
            if not holds_run(run.folder):
                refuse_occupied(run.folder)
            write_text(run.folder / FAILURE, failure.details)
    return replace(kept, status="failed", reason=failure.reason, lacks=())
