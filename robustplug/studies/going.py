"""The jobs of a study that were submitted before: which go on, how far they are, and how they are ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..plugin.build import build
from ..plugin.component import Use
from ..recipe.convert import resolve
from ..recipe.errors import RecipeError
from ..recipe.write import use_to_mapping
from .launchers.jobs import JobFiles
from .launchers.protocol import JobState
from .messages import Attack, Batch, Begin, Epoch, Failed, Message
from .outcome import Outcome, look, runs_of
from .seen import glance

if TYPE_CHECKING:
    from ..recipe.study import Study
    from .launchers.protocol import Launcher


def open_launcher(launcher: Use, folder: Path, gpus: bool = True) -> Launcher:
    """Build a resolved launcher for a study folder.

    Raises:
        RunError: what it needs is not there.
    """
    built: Launcher = build(launcher, "launcher", folder=JobFiles(folder).folder, gpus=gpus)
    return built


@dataclass(frozen=True)
class Going:
    """Hold the jobs of a study that were submitted to a launcher that lasts, and that have not ended.

    Attributes:
        folder: the study folder.
        launcher: the launcher, as a table; None if no job goes on.
        numbers: numbers of the jobs, by the name of the run folder.
        states: their states.
        ended: names of the run folders whose jobs have ended.
    """

    folder: Path
    launcher: Mapping[str, Any] | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, JobState] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: Path, runs: Sequence[str]) -> Going:
        """Ask the launcher which jobs of some runs go on.

        Args:
            folder: the study folder.
            runs: names of run folders.

        Raises:
            RecipeError: the launcher is not installed, or its options are not valid any more.
            RunError: the launcher cannot be asked.
        """
        files = JobFiles(folder)
        asked = {*runs}
        found = [each for each in files.submitted().values() if each.run in asked]
        if not found:
            return cls(folder)
        # All jobs that go on have the launcher of the newest: a study refuses to use a second one meanwhile.
        table = found[-1].launcher
        gone = frozenset(each.run for each in found if _place(each.launcher) != _place(table))
        found = [each for each in found if each.run not in gone]
        try:
            launcher = open_launcher(_resolved(table), folder)
            try:
                states = launcher.states([each.number for each in found])
            finally:
                launcher.close()
        except (RunError, RecipeError) as error:
            raise RunError(
                f"{len(found)} runs were submitted to {table.get('use')}, and may go on: {error}; if they do "
                f"not, delete {files.journal}"
            ) from error
        alive = [each for each in found if states.get(each.number, JobState("ended")).name != "ended"]
        numbers = {each.run: each.number for each in alive}
        ended = gone | {each.run for each in found} - numbers.keys()
        return cls(folder, table, numbers, {each.run: states[each.number] for each in alive}, ended)

    @contextlib.contextmanager
    def followed_by(self, launcher: Use | None, gpus: bool) -> Iterator[Launcher]:
        """Open the launcher that goes on with the study for a block.

        Args:
            launcher: the launcher that further jobs are submitted to; None if there are none.
            gpus: whether a run may use a GPU.

        Raises:
            RunError: jobs go on in another launcher.
        """
        if (
            launcher is not None
            and self.numbers
            and self.launcher
            and _place(self.launcher) != _place(use_to_mapping(launcher))
        ):
            raise RunError(
                f"{len(self.numbers)} runs of the study go on in the launcher {self.launcher['use']}: follow "
                "them with --follow, or end them with --cancel"
            )
        if launcher is None:
            launcher = _resolved(self.launcher or {"use": "local"})
        opened = open_launcher(launcher, self.folder, gpus)
        try:
            yield opened
        finally:
            opened.close()

    def cancel(self) -> None:
        """End the jobs: queued ones are withdrawn, running ones stop at their next batch."""
        if self.launcher is None or not self.numbers:
            return
        launcher = open_launcher(_resolved(self.launcher), self.folder)
        try:
            launcher.cancel([*self.numbers.values()])
        finally:
            launcher.close()


def _place(table: Mapping[str, Any]) -> tuple[Any, Any]:
    return table.get("use"), table.get("address")


def _resolved(table: Mapping[str, Any]) -> Use:
    options = dict(table)
    return resolve(Use(str(options.pop("use", "")), options), "launcher")


def going_of(study: Study, folder: Path) -> Going:
    """Return the jobs of a study that go on."""
    return Going.of(folder, [run.folder.name for run in runs_of(study, folder)])


def with_going(study: Study, folder: Path, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], Going]:
    """Return the state of each run of a study, and the jobs that go on.

    Args:
        study: the study.
        folder: its folder.
        outcomes: the state of each run, as it was just seen.

    Raises:
        RecipeError, RunError: the launcher of submitted jobs cannot be asked.
    """
    going = Going.of(folder, [each.run.folder.name for each in outcomes if each.status != "finished"])
    # A job may have ended between the two looks.
    again = [each.run.folder.name in going.ended for each in outcomes]
    return [
        look(study, each.run) if late else each for each, late in zip(outcomes, again, strict=True)
    ], going


@dataclass(frozen=True)
class Standing:
    """Say how far a run is.

    Attributes:
        folder: the run folder.
        status: "queued" or "running" for a job that goes on, or else the status of the run.
        note: the number of its job, and what it does, or why it failed.
    """

    folder: Path
    status: str
    note: str = ""


def standings(study: Study, folder: Path) -> tuple[list[Standing], str]:
    """Return how far each run of a study is, and why the launcher of its jobs cannot be asked, "" if it can.

    Raises:
        RecipeError: the launcher of the jobs is not installed, or its options are not valid any more.
    """
    files, problem, outcomes, going = JobFiles(folder), "", glance(study, folder), Going(folder)
    try:
        outcomes, going = with_going(study, folder, outcomes)
    except RunError as error:
        # The folder may be read elsewhere than where the jobs were submitted.
        problem = str(error)
    found = []
    for each in outcomes:
        name = each.run.folder.name
        messages = files.messages(name)
        for _ in messages.read() if each.status != "finished" else ():
            pass
        said = "" if messages.newest is None else progress_text(messages.newest)
        if name in going.states and going.launcher is not None:
            number = f"{going.launcher['use']} {going.numbers[name]}"
            note = " · ".join(part for part in (number, said) if part)
            found.append(Standing(each.run.folder, going.states[name].name, note))
        else:
            note = f"failed: {said}" if isinstance(messages.newest, Failed) else each.reason or said
            found.append(Standing(each.run.folder, each.status, note))
    return found, problem


def progress_text(message: Message) -> str:
    """Return in a few words what a message says of the progress of a run."""
    match message:
        case Begin(progress=at) | Batch(progress=at):
            return f"epoch {min(at.epoch + 1, at.epochs)}/{at.epochs}"
        case Epoch(report=report, epochs=epochs):
            return f"epoch {report.epoch + 1}/{epochs} done"
        case Attack(name=name, done=done, total=total):
            return f"evaluating: {name} {done}/{total}"
        case Failed(reason=reason):
            return reason
    return ""
