"""The folder of a run while it is trained: its manifest, checkpoints and reports."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.reporting import Reporter
from ..core.types import EpochReport
from ..errors import RunError, out_of_memory
from ..files.reading import Unreadable, read_json
from ..recipe.write import recipe_hash
from ..runs import checkpoint
from ..runs.folder import (
    CHECKPOINTS,
    ENVIRONMENT,
    MANIFEST,
    MODEL,
    RECIPE,
    RESULT,
    json_text,
    put_aside,
    remove_temporary,
    write_atomic,
    write_json,
    writing,
)
from ..runs.heads import names, read_head, remove_half_written
from ..runs.history import append_report, read_reports, write_reports
from ..runs.lock import Held
from ..runs.manifest import Manifest, digest_of, write_manifest
from ..runs.stored import EXTENDED, Stored, new_manifest, open_stored
from .running.behind import Behind

if TYPE_CHECKING:
    from torch import Tensor

    from ..recipe.options import Recipe
    from ..runs.checkpoint import Checkpoint
    from .session import Session


@dataclass
class Store:
    """Keep a run in its folder.

    Attributes:
        folder: the run folder.
        reporter: receives warnings.
        held: the lock of the folder; None on processes that do not write.
        stored: what the folder of a resumed run said at first; None for a new run.
        manifest: manifest of the run; None before it starts, and on the other processes of a new run.
        written: names of the run's own checkpoints, oldest first.
    """

    folder: Path
    reporter: Reporter
    held: Held | None = None
    stored: Stored | None = None
    manifest: Manifest | None = None
    written: list[str] = field(default_factory=list)
    _behind: Behind | None = field(default=None, init=False)

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    def kept(self) -> str:
        """Return a sentence on the last good checkpoint."""
        known = self.written or names(self.checkpoints)
        if not known:
            return "No checkpoint was written yet."
        return f"The last good checkpoint is {self.checkpoints / known[-1]}."

    def check(self) -> None:
        """Stop if the folder was moved away, removed or replaced.

        Raises:
            RunError: it was.
        """
        if self.held is not None:
            self.held.check(self._kept_in)

    def _kept_in(self, folder: Path) -> str:
        last = f"Its last checkpoint is {self.written[-1]}" if self.written else "It has no checkpoint yet"
        return f"{last}: continue with robustplug train --resume {folder}"

    def begin(self, recipe: Recipe, environment: Mapping[str, Any]) -> None:
        """Write the head of a new run.

        Raises:
            RunError: the folder cannot be written.
        """
        self.manifest = new_manifest(recipe, torch.get_num_threads())
        self._note()
        with writing(f"in the run folder {self.folder}", "Choose another folder with --out."):
            write_manifest(self.folder, self.manifest)
            write_json(self.folder / ENVIRONMENT, environment)
            write_atomic(self.folder / RECIPE, self.manifest.recipe.encode())

    def open(self) -> None:
        """Read what the folder of a resumed run says; on the process that writes, mend what is missing.

        Raises:
            RunError: the folder holds no run, its recipe was edited, or a link is in the place of a folder.
        """
        self.stored = found = open_stored(self.folder)
        self.manifest = found.manifest
        if self.manifest.threads is not None:
            torch.set_num_threads(self.manifest.threads)
        for name in names(self.checkpoints):
            try:
                read_head(self.checkpoints, name, self.manifest)
                self.written.append(name)
            except Unreadable:
                continue
        if self.held is None:
            return
        self._note()
        for note in found.notes:
            self.reporter.warn(note)
        self._refuse_link()
        with writing(f"in the run folder {self.folder}"):
            remove_temporary(self.folder)
            remove_half_written(self.checkpoints)
            if not found.sealed:
                put_aside(self.folder / MANIFEST, "damaged")
                write_manifest(self.folder, self.manifest)
        self.agree(found.stale)

    def agree(self, stale: bool) -> None:
        """Make recipe.toml and environment.json, which are for the reader, agree with the manifest.

        Args:
            stale: whether recipe.toml must be written again.

        Raises:
            RunError: they cannot be written.
        """
        assert self.manifest is not None
        with writing(f"in the run folder {self.folder}"):
            if stale:
                write_atomic(self.folder / RECIPE, self.manifest.recipe.encode())
            path, numbers = self.folder / ENVIRONMENT, [each.epochs for each in self.manifest.earlier]
            if not numbers:
                return
            try:
                body = read_json(path)
            except (FileNotFoundError, Unreadable) as error:
                why = str(error) if isinstance(error, Unreadable) else "is missing"
                self.reporter.warn(f"{path} {why}: the earlier numbers of epochs are only in {MANIFEST}")
                return
            if isinstance(body, dict) and body.get(EXTENDED) != numbers:
                write_json(path, {**body, EXTENDED: numbers})

    def _note(self) -> None:
        if self.held is not None and self.manifest is not None:
            self.held.note(self.manifest.run)

    def _refuse_link(self) -> None:
        if self.checkpoints.is_symlink():
            raise RunError(
                f"{self.checkpoints} is a link, and nothing is written or deleted behind it: put the folder "
                "itself in its place"
            )

    def digest_for(self, recipe: Recipe) -> str:
        """Return the digest of the recipe, as the checkpoints of the run state it."""
        found = self.stored
        if found is not None and found.recipe.train.epochs == recipe.train.epochs:
            return found.manifest.digest
        return recipe_hash(recipe)

    def restore(self, session: Session) -> None:
        """Restore the newest checkpoint that the main process can use, and the reports of its epochs.

        Raises:
            RunError: no checkpoint can be used.
        """
        processes = session.loop.processes
        try:
            found = self._restore_newest(session) if processes.main else None
        finally:
            # The folder may look different from each process: all take what the main one took.
            self.written = processes.lines_from_main(self.written if processes.main else [])
        if found is None:
            found = self._restore_as_told(session)
        _, session.best, notes = checkpoint.load_selected(self.checkpoints, found, self.manifest)
        self._warn(notes)
        assert self.manifest is not None
        if found.meta["history"] is None:
            session.history, notes = read_reports(self.folder, self.manifest.run, session.epoch)
            self._warn(notes)
        else:
            session.history = [EpochReport(**report) for report in found.meta["history"]]
        if self.held is not None:
            # A kill may have come before they were pruned, and after the last one nothing else does it.
            with writing(f"in {self.checkpoints}"):
                checkpoint.prune(self.checkpoints, self.written, self._keep(session))
        self.rewrite(session)

    def _restore_newest(self, session: Session) -> Checkpoint:
        problems = checkpoint.missing(self.checkpoints, self.manifest)
        usable, self.written = self.written, []
        for name in reversed(names(self.checkpoints)):
            try:
                found = checkpoint.load(self.checkpoints, name, self.manifest)
            except Unreadable as error:
                problems.append(f"checkpoint {name} cannot be used: {error}")
                continue
            session.check_world(found)
            try:
                session.restore(found)
                break
            except Exception as error:  # what a checkpoint holds can fail in any way
                if out_of_memory(error):
                    raise
                text = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
                problems.append(f"checkpoint {name} cannot be used: {text}")
        else:
            raise RunError(checkpoint.none_left(self.checkpoints, problems))
        for problem in problems:
            self.reporter.warn(f"{problem}; resuming from {found.name}")
        there, here = found.meta["world"], session.loop.processes.world
        if there != here:
            self.reporter.warn(
                f"the run goes on with {here} processes instead of {there}: on the same batches, but with "
                "other rounding, and other noise"
            )
        # What is newer cannot be used: it is put aside when its name is written again.
        self.written = [*takewhile(lambda name: name != found.name, usable), found.name]
        return found

    def _restore_as_told(self, session: Session) -> Checkpoint:
        if not self.written:
            raise RunError(f"the main process can use no checkpoint in {self.checkpoints}")
        try:
            found = checkpoint.load(self.checkpoints, self.written[-1], self.manifest)
        except Unreadable as error:
            raise RunError(
                f"process {session.loop.processes.rank} cannot read the checkpoint that the main process "
                f"resumes from: {error}. All processes must see the same run folder."
            ) from error
        session.check_world(found)
        session.restore(found)
        return found

    def rewrite(self, session: Session) -> None:
        """Make the files of the reports agree with the session, and name those that were changed."""
        if self.held is not None and self.manifest is not None:
            with writing(f"in the run folder {self.folder}"):
                self._warn(write_reports(self.folder, self.manifest.run, session.history))

    def _warn(self, notes: list[str]) -> None:
        for note in notes:
            self.reporter.warn(note)

    def append(self, report: EpochReport) -> None:
        """Add the report of an epoch.

        Raises:
            RunError: it cannot be written, or the folder is not that of the run any more.
        """
        assert self.manifest is not None
        self.check()
        self._refuse_link()
        with writing(f"the report of an epoch in {self.folder}", self.kept()):
            append_report(self.folder, self.manifest.run, report)

    @contextlib.contextmanager
    def behind(self, really: bool) -> Iterator[None]:
        """Write the checkpoints of a block in a thread; at the block's end all are written.

        Args:
            really: whether to do so; else `save` returns when the checkpoint is written.

        Raises:
            RunError: the last one cannot be written.
        """
        self._behind = Behind() if really else None
        try:
            yield
        finally:
            behind, self._behind = self._behind, None
            if behind is not None:
                behind.wait()

    def wait(self) -> None:
        """Wait until the checkpoint before is written, so that no further copy of it is in memory.

        Raises:
            RunError: it cannot be written.
        """
        if self._behind is not None:
            self._behind.wait()

    def save(self, session: Session, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write a checkpoint, and delete those that are not needed any more.

        Args:
            session: the session; only its name for the checkpoint and the best one so far are read.
            tensors, meta: the checkpoint; nothing else may change them.

        Raises:
            RunError: it cannot be written, or the folder is not that of the run any more. Behind the
                training, that is said of the checkpoint before.
        """
        write = functools.partial(self._write, session.name, self._keep(session), tensors, meta)
        if self._behind is None:
            write()
        else:
            self._behind.start(write)

    def _write(
        self, name: str, keep: set[str], tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> None:
        assert self.manifest is not None
        self.check()
        self._refuse_link()
        with writing(f"a checkpoint in {self.checkpoints}", self.kept()):
            if name not in self.written and (self.checkpoints / f"{name}.json").exists():
                # Damaged, or of another run.
                for suffix in (".safetensors", ".json"):
                    put_aside(self.checkpoints / f"{name}{suffix}", "unused")
            checkpoint.save(self.checkpoints, name, tensors, meta, self.manifest.run)
            if name not in self.written:
                self.written.append(name)
            checkpoint.prune(self.checkpoints, self.written, keep)

    def _keep(self, session: Session) -> set[str]:
        return {session.best[0]} if session.best else set()

    def restore_selected(self, session: Session) -> None:
        """Restore the weights of the selected checkpoint, or of another where it cannot be used any more.

        Raises:
            RunError: no checkpoint can be used.
        """
        if session.best is None:
            return
        try:
            chosen = checkpoint.load(self.checkpoints, session.best[0], self.manifest)
        except Unreadable:
            newest, problems = checkpoint.load_newest(self.checkpoints, self.manifest)
            chosen, session.best, notes = checkpoint.load_selected(self.checkpoints, newest, self.manifest)
            self._warn([*problems, *notes])
        session.restore_weights(chosen)

    def finish(self, weights: bytes, result: Mapping[str, Any]) -> None:
        """Write the exported weights and the result of the run; the manifest gets their digests.

        Raises:
            RunError: they cannot be written, or the folder is not that of the run any more.
        """
        assert self.manifest is not None
        self.check()
        with writing(f"the result in {self.folder}", self.kept()):
            write_atomic(self.folder / MODEL, weights)
            files = {
                MODEL: hashlib.sha256(weights).hexdigest(),
                RESULT: hashlib.sha256(json_text(result, indent=1).encode()).hexdigest(),
            }
            if (self.folder / ENVIRONMENT).is_file():
                files[ENVIRONMENT] = digest_of(self.folder / ENVIRONMENT)
            changed = {
                "files": {**self.manifest.files, **files},
                "newest": self.written[-1] if self.written else "",
            }
            self.manifest = self.manifest.model_copy(update=changed)
            write_manifest(self.folder, self.manifest)
            write_json(self.folder / RESULT, result)
