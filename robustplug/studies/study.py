"""Run studies: each cell and seed has a run folder, and finished runs are not repeated."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..core.reporting import Reporter, Silent
from ..errors import Interrupted, RunError
from ..evaluation.audit.audit import NAME as AUDIT
from ..evaluation.results import evaluation_digest
from ..recipe.errors import RecipeError
from ..recipe.load import read_suite
from ..recipe.write import digest, options_to_mapping, recipe_to_mapping, use_to_mapping
from ..runs.choose import differences, stored_recipe
from ..runs.folder import EVALUATIONS, RESULT, holds_run, is_finished, locked, write_json, writing
from ..runs.result_file import result_from_json
from ..subjects.assemble import threat_of
from .work import Commands, Failure, Job, carry_out
from .workers import places, run_side_by_side, visible_gpus

if TYPE_CHECKING:
    from ..core.types import AttackResult, Result
    from ..recipe.options import Recipe
    from ..recipe.study import Cell, Study

FORMAT = 1
STUDIES, RUNS, FAILURE = Path("studies"), "runs", "failure.txt"

Status = Literal["not started", "unfinished", "trained", "finished", "another recipe", "failed"]


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


@dataclass(frozen=True)
class Run:
    """Describe one cell with one seed.

    Attributes:
        cell: the cell of the study.
        seed: the seed of the run.
        recipe: the recipe of the run.
        folder: the run folder.
    """

    cell: Cell
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """Return the name for display."""
        return f"{self.cell.name}, seed={self.seed}" if self.cell.name else f"seed={self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Hold the state of a run.

    Attributes:
        run: the run.
        status: state of the run; "trained" means that the suite or the audit is missing.
        reason: why the run failed, or how its recipe differs.
        seconds: training time.
        accuracies: accuracy by row, without skipped rows, whose accuracy is NaN.
        audit: grade and verdict; None for no audit.
    """

    run: Run
    status: Status
    reason: str = ""
    seconds: float | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    threats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: Mapping[str, str] | None = None


def runs_of(study: Study, folder: Path) -> list[Run]:
    """List the runs of a study in their order of execution, with the seeds of a cell in sequence."""
    runs = []
    for cell in study.cells:
        for seed in study.seeds:
            recipe = cell.with_seed(seed)
            runs.append(Run(cell, seed, recipe, folder / RUNS / recipe.name))
    return runs


def look(study: Study, run: Run) -> Outcome:
    """Return the state of a run, without running anything."""
    if not holds_run(run.folder):
        return Outcome(run, "not started")
    try:
        changed = differences(run.recipe, stored_recipe(run.folder))
    except RecipeError as error:
        changed = [str(error)]
    if changed:
        found = "; ".join(changed)
        reason = f"was created with another recipe: {found}; use another --out or delete {run.folder}"
        return Outcome(run, "another recipe", reason)
    if not is_finished(run.folder):
        return Outcome(run, "unfinished")
    own = _read(run.folder / RESULT)
    if own is None:
        reason = f"{run.folder / RESULT} cannot be read; use another --out or delete {run.folder}"
        return Outcome(run, "another recipe", reason)
    results, complete = [("", own)], True
    for name in _asked(study):
        more = _current(study, run, name)
        complete = complete and more is not None
        if more is not None and name != AUDIT:
            results.append((name, more))
    seconds = own.meta.get("training", {}).get("seconds")
    status: Status = "finished" if complete else "trained"
    audit = _read_audit(run.folder) if study.audit and _current(study, run, AUDIT) else None
    rows = rows_of(results)
    accuracies = {name: row.accuracy for name, row in rows.items()}
    threats = {name: row.threat for name, row in rows.items() if row.threat}
    return Outcome(run, status, "", seconds, accuracies, threats, audit)


def _asked(study: Study) -> list[str]:
    """List the results that the study requires of a run besides its own."""
    return [*([study.suite_name] if study.suite else []), *([AUDIT] if study.audit else [])]


def _read(path: Path) -> Result | None:
    """Read a result; None if it is missing or invalid and must be computed (again)."""
    try:
        return result_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _current(study: Study, run: Run, name: str) -> Result | None:
    """Read the result of the study's suite, or of an audit; None if it must be computed (again).

    A result with other rows, samples, seed or threat model does not meet the study.
    """
    found = _read(run.folder / EVALUATIONS / f"{name}.json")
    asked = {} if found is None else found.meta.get("asked", {})
    if asked.get("evaluation") != evaluation_digest(run.recipe):
        return None
    if name != AUDIT and study.suite is not None:
        suite = read_suite(study.suite, use_to_mapping(threat_of(run.recipe)))
        if asked.get("rows") != digest(options_to_mapping(suite)):
            return None
    return found


def _read_audit(folder: Path) -> Mapping[str, str] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / EVALUATIONS / f"{AUDIT}.json").read_text(encoding="utf-8"))[AUDIT]
        return {"grade": str(found["grade"]), "verdict": str(found["verdict"])}
    return None


def rows_of(results: Sequence[tuple[str, Result]]) -> dict[str, AttackResult]:
    """Return the rows of results by name.

    The names of equal rows are extended by their suite, and then by a number. The clean accuracy of a suite
    is left out, since it is that of the run.

    Args:
        results: results, each with the name of its suite, "" for the run's own, which comes first.
    """
    found: dict[str, AttackResult] = {}
    for suite, result in results:
        for row in result.attacks:
            if row.skipped or (suite and row.name == "clean"):
                continue
            name = row.name if row.name not in found or not suite else f"{row.name} ({suite})"
            number, unique = 1, name
            while unique in found:
                number += 1
                unique = f"{name} {number}"
            found[unique] = row
    return found


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
                        "audit": outcome.audit,
                    }
                    for outcome in by_cell[cell.slug]
                ],
                "rows": {
                    name: spread_of([o.accuracies[name] for o in by_cell[cell.slug] if name in o.accuracies])
                    for name in rows
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
    with locked(folder):
        outcomes = [look(study, run) for run in runs_of(study, folder)]
        jobs = {
            at: _job(study, each, observers) for at, each in enumerate(outcomes) if each.status != "finished"
        }
        on_gpus = any(each.run.recipe.train.device in ("auto", "cuda") for each in outcomes)
        where = places(processes, visible_gpus() if on_gpus else [])[: max(1, len(jobs))]
        reporter.plan(outcomes, len(where))

        def start(at: int) -> Reporter:
            return reporter.start(at + 1, outcomes[at].run.name)

        def done(at: int, failure: Failure | None) -> None:
            outcomes[at] = _ended(study, outcomes[at].run, failure)
            _write(study, folder, outcomes)
            reporter.done(at + 1, outcomes[at])

        with _going_on():
            for at, lacking in list(jobs.items()):
                if lacking is None:
                    del jobs[at]
                    start(at)
                    done(at, Failure(outcomes[at].reason, ""))
            work = {at: job for at, job in jobs.items() if job is not None}
            if len(where) > 1:
                run_side_by_side(work, where, start, done)
            else:
                for at, job in work.items():
                    done(at, carry_out(job, commands, start(at)))
        return _write(study, folder, outcomes)


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
        write_json(folder / RESULT, body)
    return body


def _job(study: Study, before: Outcome, observers: Sequence[str]) -> Job | None:
    """Return the remaining work of a run; None if its folder contains a run of another recipe."""
    run = before.run
    if before.status == "another recipe":
        return None
    lacks = {name: before.status != "trained" or _current(study, run, name) is None for name in _asked(study)}
    return Job(
        recipe_to_mapping(run.recipe),
        str(run.folder),
        train=before.status != "trained",
        resume=before.status == "unfinished",
        suite=str(study.suite) if study.suite and lacks[study.suite_name] else None,
        audit=lacks.get(AUDIT, False),
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
        with contextlib.suppress(OSError):
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / FAILURE).write_text(failure.details, encoding="utf-8")
    return Outcome(run, "failed", failure.reason, kept.seconds, kept.accuracies, kept.threats, kept.audit)
