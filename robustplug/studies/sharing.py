"""Evaluate or audit a model in several processes or jobs, which share its batches."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.reporting import Reporter, Silent, Warns
from ..errors import Interrupted, RunError
from ..files.reading import Unreadable, read_bytes
from ..files.seals import digest
from ..plugin.component import Use
from ..recipe.convert import resolve
from ..recipe.errors import Problem, RecipeError
from ..recipe.toml.overrides import apply_override
from ..recipe.write import use_to_mapping
from ..runs.folder import holds_run, write_text, writing
from ..runs.lock import locked
from ..runs.result_file import AUDIT, make_room, note_in_result, read_sealed, write_result
from .following import Hearer, follow
from .going import Going
from .launchers.jobs import JobFiles
from .launchers.local import Local
from .launchers.protocol import Launcher
from .messages import Messages
from .parts import Command, Part, sendable
from .study import FAILURE
from .work import Failure

_PREFIX = "launcher."
# No evaluation has as many parts.
_MOST = 4096
_AGAIN = "what is done is kept: the same command goes on with it"


@dataclass(frozen=True)
class Sharing:
    """Say in how many parts an evaluation is done, and where.

    Attributes:
        launcher: who carries out the parts, resolved.
        parts: number of parts; None for as many as the launcher has places on this machine.
    """

    launcher: Use
    parts: int | None


def sharing_of(
    launcher: str | Mapping[str, Any] | None, processes: int | None, overrides: Sequence[str]
) -> tuple[Sharing | None, list[str]]:
    """Return who shares an evaluation, None for nobody, and the overrides that are not about that.

    Args:
        launcher: name or table of a launcher; None for `local`.
        processes: number of parts; None for what fits.
        overrides: "key=value"; those of "launcher." change its options.

    Raises:
        RecipeError: the launcher or an option is not valid.
    """
    own = [each for each in overrides if each.startswith(_PREFIX)]
    rest = [each for each in overrides if not each.startswith(_PREFIX)]
    if launcher is None and processes is None and not own:
        return None, rest
    table: dict[str, Any] = {"use": launcher} if isinstance(launcher, str) else dict(launcher or {})
    data: dict[str, Any] = {"launcher": {"use": "local", **table}}
    for each in own:
        try:
            apply_override(data, each)
        except ValueError as error:
            raise RecipeError([Problem("launcher", f"--set {each}: {error}")], "launcher") from error
    options = data["launcher"]
    name = str(options.pop("use"))
    if name == "local" and processes is not None:
        options["processes"] = processes
    return Sharing(resolve(Use(name, options), "launcher"), processes), rest


@dataclass
class _Together(Silent):
    """Pass on how far the part is that is furthest, and each warning once."""

    reporter: Reporter
    rows: list[str] = field(default_factory=list)
    newest: tuple[int, int] = (0, 0)
    told: set[str] = field(default_factory=set)

    def attack(self, name: str, done: int, total: int) -> None:
        """Pass it on, if no other part is further."""
        if name not in self.rows:
            self.rows.append(name)
        at = self.rows.index(name), done
        if at > self.newest:
            self.newest = at
            self.reporter.attack(name, done, total)

    def warn(self, message: str) -> None:
        """Pass it on once."""
        if message not in self.told:
            self.told.add(message)
            self.reporter.warn(message)


def share(
    sharing: Sharing,
    command: Command,
    model: Any,
    opening: Mapping[str, Any],
    arguments: Mapping[str, Any],
    out: str | Path | None,
) -> dict[str, Any]:
    """Evaluate or audit a model in parts, and return the content of the result, as one process makes it.

    A part that ends has the outcomes of all batches, and writes the whole result: the first that does so ends
    the others.

    Args:
        sharing: how many parts, and where.
        command: what is done.
        model: run folder, file or name of the model.
        opening: arguments that open the model and its data.
        arguments: further arguments of the command.
        out: folder of the result; None for none.

    Raises:
        RunError: no part could be done, the launcher refuses them, an argument cannot be sent elsewhere, or
            what is asked for needs one process.
        Interrupted: Ctrl-C or SIGTERM was received; the same call goes on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("processes and launcher are for a command of one process: leave out torchrun")
    if not isinstance(model, str | Path):
        raise RunError(
            f"a {type(model).__name__} cannot be sent to other processes: give a run folder or a file, or "
            "leave out processes and launcher"
        )
    for argument, value in (("examples are kept", "keep_examples"), ("a budget of time is kept", "budget")):
        if arguments.get(value):
            raise RunError(f"{argument} by one process: leave out processes and launcher")
    name, reporter = _name(command, arguments), opening.get("reporter") or Warns()
    out = None if out is None else Path(out)
    given = {key: value for key, value in opening.items() if key != "reporter" and value is not None}
    asked = {key: value for key, value in arguments.items() if value is not None}
    plain = sendable(given, "an argument"), sendable(asked, "an argument")
    with contextlib.ExitStack() as stack:
        if out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            stack.enter_context(locked(out, f".{name}.lock"))
            folder = out / f"{name}-shares-{_digest(command, str(model), plain)}"
        running = _Parts(sharing, command, str(model), plain, folder, out is not None, _Together(reporter))
        found = running.run()
        run = Path(model) if holds_run(Path(model)) else None
        try:
            body, _ = read_sealed(found, run)
        except (FileNotFoundError, Unreadable) as error:
            raise RunError(f"{found} {error}; {_AGAIN}") from error
        if out is not None:
            make_room(out / found.name)
            write_result(out / found.name, body, run)
            with writing(f"to {out}"):
                texts = found.with_name(f"{found.stem}-texts")
                if texts.exists():
                    shutil.rmtree(out / texts.name, ignore_errors=True)
                    shutil.move(texts, out / texts.name)
            if run is not None and found.stem == AUDIT:
                note_in_result(run, AUDIT, body[AUDIT])
            shutil.rmtree(folder, ignore_errors=True)
    return body


@dataclass
class _Parts:
    """The parts of an evaluation while they are done; `stays` says whether their folder outlives them."""

    sharing: Sharing
    command: Command
    model: str
    plain: tuple[dict[str, Any], dict[str, Any]]
    folder: Path
    stays: bool
    reporter: Reporter
    numbers: dict[int, str] = field(default_factory=dict)
    unsent: dict[int, Path] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    finished: Path | None = None
    launcher: Launcher | None = None

    def run(self) -> Path:
        """Submit the parts, follow them until one is done, and return the file of its result."""
        try:
            self._follow()
        finally:
            if self.finished is None and self.launcher is not None:
                self._tidy(elsewhere=self.launcher.lasting and bool(self.numbers))
        if self.finished is None:
            said = (each.reason.partition("; the same command")[0] for each in self.failures.values())
            details = self.folder / FAILURE
            see = f"; see {details}" if self.stays and details.exists() else ""
            kept = f"; {_AGAIN}" if self.stays and self._begun() else ""
            raise RunError(f"no part was done: {'; '.join(dict.fromkeys(said))}{see}{kept}")
        return self.finished

    def _follow(self) -> None:
        files, table = JobFiles(self.folder), use_to_mapping(self.sharing.launcher)
        count = self.sharing.parts
        # Also those of the same command with another number of parts.
        going = Going.of(self.folder, [_job(n) for n in range(_MOST)])
        gpus = self.plain[0].get("device", "auto") in ("auto", "cuda")
        with going.followed_by(self.sharing.launcher, gpus) as self.launcher:
            count = count or (self.launcher.places if isinstance(self.launcher, Local) else 1)
            known = {n: going.numbers[_job(n)] for n in range(_MOST) if _job(n) in going.numbers}
            self.numbers = dict(known)
            for n in range(count):
                if n not in known:
                    # What it said before is no more than what its journal holds.
                    self.unsent[n] = files.write_text(_job(n), self._part(n, count).model_dump_json())

            def submitted(took: Iterable[tuple[int, str]]) -> None:
                took = list(took)
                self.numbers.update(took)
                if self.launcher is not None and self.launcher.lasting:
                    files.note(table, [(_job(n), number) for n, number in took])

            def messages(n: int) -> Messages:
                return files.messages(_job(n))

            hearer = Hearer(submitted, lambda n: True, lambda n: self.reporter, self._done, self._full)
            try:
                with _resumable(self.launcher.lasting, self.stays):
                    follow(self.launcher, self.unsent, known, messages, hearer)
            except Interrupted:
                if not self.stays:
                    self.launcher.cancel([*self.numbers.values()])
                raise

    def _tidy(self, elsewhere: bool) -> None:
        """Leave what the same command goes on from, and what explains a failure; remove the rest.

        Args:
            elsewhere: whether jobs were submitted to a cluster: they may go on, and have left their logs.
        """
        if not elsewhere:
            for folder in (JobFiles(self.folder).folder, *self.folder.glob("part-*")):
                shutil.rmtree(folder, ignore_errors=True)
        details = dict.fromkeys(each.details for each in self.failures.values() if each.details)
        with writing(f"to {self.folder}"):
            (self.folder / FAILURE).unlink(missing_ok=True)
            if details:
                write_text(self.folder / FAILURE, "\n\n".join(details))
        if not (details or elsewhere or self._begun()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _begun(self) -> bool:
        """Return whether a journal holds an outcome, after its first line."""
        for path in self.folder.glob("*.journal"):
            with path.open("rb") as lines:
                if len(list(itertools.islice(lines, 2))) > 1:
                    return True
        return False

    def _part(self, number: int, count: int) -> Part:
        opening, arguments = self.plain
        return Part(
            command=self.command,
            model=self.model,
            opening=opening,
            arguments=arguments,
            number=number,
            of=count,
            shares=str(self.folder.absolute()),
            folder=str(self._place(number).absolute()),
            directory=str(Path.cwd()),
        )

    def _place(self, number: int) -> Path:
        return self.folder / _job(number)

    def _done(self, number: int, failure: Failure | None) -> None:
        """Note how a part ended; if it is done, the others need not go on."""
        if failure is not None:
            self.failures[number] = failure
            return
        found = sorted(self._place(number).glob("*.json"))
        if not found:
            self.failures[number] = Failure(f"{self._place(number)} holds no result", "")
        elif self.finished is None:
            self.finished = found[0]
            self.unsent.clear()
            others = [each for n, each in self.numbers.items() if n != number and n not in self.failures]
            if self.launcher is not None and others:
                self.launcher.cancel(others)

    def _full(self, count: int) -> None:
        self.reporter.warn(f"the queue takes no more jobs for now: {count} parts wait, and others do theirs")


def _job(number: int) -> str:
    """Return the name of the job of a part, and of the folder of its result."""
    return f"part-{number}"


@contextlib.contextmanager
def _resumable(lasting: bool, stays: bool) -> Iterator[None]:
    """Add to an interrupt how to go on."""
    on = "what was submitted goes on; the same command follows it" if lasting else f"stopped; {_AGAIN}"
    if not stays:
        on = "stopped; without a folder for the result, nothing is kept: give one with --out"
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(on, stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        raise Interrupted(on, 130) from stop


def _digest(command: Command, model: str, plain: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """Return a digest of what is asked for: of another command no part is followed, and no result taken."""
    suite, rows = plain[1].get("suite"), ""
    if isinstance(suite, str):
        # The parts say what is wrong with a file that cannot be read.
        with contextlib.suppress(FileNotFoundError, Unreadable):
            rows = read_bytes(Path(suite)).hex()
    return digest([command, model, plain, rows, str(Path.cwd())])[:8]


def _name(command: Command, arguments: Mapping[str, Any]) -> str:
    """Return a name for the folder of the parts: that of the result, as far as it is known before."""
    suite = arguments.get("suite")
    if command == "audit":
        return AUDIT
    of_suite = suite.get("name") if isinstance(suite, Mapping) else suite and Path(str(suite)).stem
    return str(arguments.get("name") or of_suite or "evaluation")
