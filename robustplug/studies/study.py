"""Run studies: each cell and seed has a run folder, and finished runs are not repeated."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.reporting import Reporter, Silent
from ..errors import Interrupted, RunError
from ..files.reading import Unreadable, read_json
from ..recipe.write import recipe_to_mapping, use_to_mapping
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
from ..runs.result_file import AUDIT, seal_result
from .following import Hearer, follow
from .going import with_going
from .launchers.jobs import JobFiles
from .launchers.local import Local
from .outcome import Outcome, Run, asked_of, look, runs_of
from .seen import note_finished
from .work import Commands, Failure, Job, carry_out

if TYPE_CHECKING:
    from ..recipe.study import Study
    from .launchers.protocol import Launcher

FORMAT = 1
FAILURE = "failure.txt"
# How often result.json is written anew, at most, until all runs are done.
_REWRITTEN = 20
# What a study leaves in its folder, also when it is killed.
_OWN = re.compile(
    r"runs|report|jobs|seen\.jsonl|result\.json|result-damaged(-\d+)?\.json|\.lock(\.exists)?|\.result\.json\.\d+\.tmp"
)


class StudyReporter(Protocol):
    """Receive the progress of a study; several runs may be active at a time."""

    def plan(self, outcomes: Sequence[Outcome], places: int) -> None:
        """Receive the state of each run, and the number of simultaneous runs, before any run starts."""

    def start(self, number: int, name: str) -> Reporter:
        """Receive the start of a run, and return the reporter of its progress; numbers start at 1."""

    def done(self, number: int, outcome: Outcome) -> None:
        """Receive the outcome of a run."""

    def warn(self, message: str) -> None:
        """Receive a warning about the study as a whole."""


class SilentStudy:
    """Report nothing."""

    def plan(self, outcomes: Sequence[Outcome], places: int) -> None:
        """Ignore it."""

    def start(self, number: int, name: str) -> Reporter:
        """Ignore it."""
        return Silent()

    def done(self, number: int, outcome: Outcome) -> None:
        """Ignore it."""

    def warn(self, message: str) -> None:
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
    observers: Sequence[str] = (),
    submit: bool = True,
) -> dict[str, Any]:
    """Run the unfinished runs of a study, and write result.json now and then and at the end.

    Args:
        study: a study whose cells have been checked.
        folder: the study folder.
        commands: the functions that train, evaluate and audit.
        reporter: receives progress.
        observers: names of the plugins that observe the runs.
        submit: whether to start runs, or else only to follow those that were submitted before.

    Returns:
        The content of result.json; failed runs have a reason.

    Raises:
        RunError: the study was started in several processes, the folder cannot be written, another process
            runs a study in it, or the launcher refuses its jobs.
        Interrupted: Ctrl-C or SIGTERM was received; the same command resumes the study.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            "a study must be started in one process: leave out torchrun and accelerate launch; --processes "
            "sets the number of simultaneous runs"
        )
    refuse_foreign(folder)
    with locked(folder) if submit else contextlib.nullcontext():
        if submit:
            _put_damaged_aside(folder)
        outcomes, going = with_going(study, folder, [look(study, run) for run in runs_of(study, folder)])
        with going.followed_by(study.launcher if submit else None, _use_gpus(outcomes)) as launcher:
            running = _Running(study, folder, outcomes, reporter, launcher)
            waiting = sum(each.status not in ("finished", "another recipe") for each in outcomes)
            places = min(launcher.places, max(1, waiting))
            reporter.plan(outcomes, places)
            if submit:
                running.take(observers, going.numbers)
            with _going_on(launcher.lasting):
                if places == 1 and isinstance(launcher, Local):
                    running.carry_out(commands)
                else:
                    running.follow(going.numbers)
        return running.write()


def _use_gpus(outcomes: Sequence[Outcome]) -> bool:
    return any(each.run.recipe.train.device in ("auto", "cuda") for each in outcomes)


class _Running:
    """The runs of a study while they are run."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        outcomes: list[Outcome],
        reporter: StudyReporter,
        launcher: Launcher,
    ) -> None:
        self.study, self.folder, self.outcomes = study, folder, outcomes
        self.reporter, self.launcher, self.files = reporter, launcher, JobFiles(folder)
        self.waiting = dict[int, Job]()
        self._unsent = dict[int, Path]()
        self._unwritten = 0

    def take(self, observers: Sequence[str], going: Mapping[str, str]) -> None:
        """Take the remaining work, without what is submitted already."""
        lost = []
        for at, each in enumerate(self.outcomes):
            if each.status == "another recipe" or (each.status == "failed" and not each.lacks):
                lost.append(at)
            elif each.status != "finished" and each.run.folder.name not in going:
                self.waiting[at] = _job(self.study, each, observers)
        for at in lost:
            self.start(at)
            self.done(at, Failure(self.outcomes[at].reason, ""))

    def carry_out(self, commands: Commands) -> None:
        """Do the work in this process; a run that others start from comes before them."""
        while self.waiting:
            at = next(iter(self.waiting))
            job = self.waiting.pop(at)
            self.prepare(at)
            self.done(at, carry_out(job, commands, self.start(at)))

    def follow(self, going: Mapping[str, str]) -> None:
        """Submit the work, and follow it and what was submitted before."""
        names = [each.run.folder.name for each in self.outcomes]
        for at in self.waiting:
            self.prepare(at)
        launcher = use_to_mapping(self.study.launcher)

        def note(numbers: Iterable[tuple[int, str]]) -> None:
            if self.launcher.lasting:
                self.files.note(launcher, [(names[at], number) for at, number in numbers])

        hearer = Hearer(note, self._can_start, self.start, self.done, self._full)
        self._unsent = {at: self.files.write(names[at], job) for at, job in self.waiting.items()}
        known = {at: going[name] for at, name in enumerate(names) if name in going}
        follow(self.launcher, self._unsent, known, lambda at: self.files.messages(names[at]), hearer)

    def _can_start(self, at: int) -> bool:
        """Return whether the runs that a run starts from have been trained."""
        return all(is_finished(folder) for folder in self.outcomes[at].run.needs.values())

    def _full(self, count: int) -> None:
        self.reporter.warn(f"the queue takes no more jobs for now: {count} runs wait here until it does")

    def prepare(self, at: int) -> None:
        """Put aside what a run must make again."""
        before = self.outcomes[at]
        if before.status == "damaged":
            with writing(f"in the run folder {before.run.folder}"):
                put_aside(before.run.folder / RESULT, "damaged")

    def start(self, at: int) -> Reporter:
        """Report that a run starts, and return its reporter."""
        before = self.outcomes[at]
        listener = self.reporter.start(at + 1, before.run.name)
        if before.status in ("damaged", "trained") and before.reason:
            listener.warn(before.reason)
        return listener

    def done(self, at: int, failure: Failure | None) -> None:
        """Note how a run ended; result.json is not written anew for each of many."""
        self.outcomes[at] = _ended(self.study, self.outcomes[at].run, failure)
        if self.outcomes[at].status == "finished":
            note_finished(self.study, self.folder, self.outcomes[at].run)
        self._unwritten += 1
        if self._unwritten * _REWRITTEN >= len(self.outcomes):
            self.write()
        self.reporter.done(at + 1, self.outcomes[at])
        if not is_finished(self.outcomes[at].run.folder):
            self._give_up_on_those_after(self.outcomes[at])

    def _give_up_on_those_after(self, lost: Outcome) -> None:
        why = f"starts from {lost.run.name}, which is {lost.status}: {lost.reason}"
        for at, each in enumerate(self.outcomes):
            if at in self.waiting and lost.run.folder in each.run.needs.values():
                del self.waiting[at]
                self._unsent.pop(at, None)
                self.start(at)
                self.done(at, Failure(why, ""))

    def write(self) -> dict[str, Any]:
        """Write result.json, and return its content."""
        self._unwritten = 0
        body = study_to_json(self.study, self.folder, self.outcomes)
        with writing(f"the result of the study in {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / RESULT, seal_result(body, "result"))
        return body


@contextlib.contextmanager
def _going_on(lasting: bool) -> Iterator[None]:
    """Add to an interrupt how to resume."""
    message = (
        "what was submitted goes on: see it with --status, follow it with --follow, end it with --cancel"
        if lasting
        else "stopped; finished work is kept: give the same command again to resume"
    )
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(message, stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        raise Interrupted(message, 130) from stop


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


def _job(study: Study, before: Outcome, observers: Sequence[str]) -> Job:
    """Return the remaining work of a run."""
    run, trained = before.run, before.status in ("trained", "failed")
    lacks = before.lacks if trained else asked_of(study)
    return Job(
        recipe_to_mapping(run.recipe),
        str(run.folder.absolute()),
        train=not trained,
        resume=before.status in ("unfinished", "damaged"),
        suite=str(study.suite.absolute()) if study.suite and study.suite_name in lacks else None,
        audit=AUDIT in lacks,
        device=run.recipe.train.device,
        observers=list(observers),
        directory=str(Path.cwd()),
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
