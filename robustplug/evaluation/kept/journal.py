"""Record the progress of an evaluation batch by batch, so that a killed one can resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ...runs.folder import write_atomic, writing
from .records import Chunk, Place, Records, decode, encode, first_line, linked, misfit, read_records
from .tail import Spot, Tail

if TYPE_CHECKING:
    from ...core.types import Batch
    from ...devices.processes import Processes

# Attacks the batches of a row whose numbers are wanted, and records the outcomes.
Again = Callable[[Callable[[int], bool]], None]
# Part of every evaluation's identity: records of an earlier version lack what this one needs.
JOURNAL_FORMAT = 4


class Quiet:
    """Record nothing."""

    alone = True

    def chunk(self, attack: int, number: int, batch: Batch, classes: int | None) -> Chunk | None:
        """Return None."""
        return None

    def mine(self, number: int) -> bool:
        """Return True: nobody else attacks a batch of this process."""
        return True

    def shared(self, attack: int, again: Again) -> Iterator[Chunk]:
        """Yield nothing: no outcome is with others."""
        yield from ()

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Ignore it."""

    def end_of_attack(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Journal(Quiet):
    """A file of JSON lines: its identity first, then a line for each batch of each process.

    Each line carries a digest of its own and a digest that follows from the line before, so that changed,
    removed and moved lines are found. After a kill, only the last line can be incomplete; it is ignored. Only
    the main process writes: it receives the records of the others when an attack ends. Refusals are not
    recorded, because their cause may be gone next time.

    Attributes:
        processes: the processes that share the evaluation.
        key: digest of what distinguishes this evaluation from others.
        chunks: known outcomes, by process, attack and batch, or where they are in the file.
        file: the open file on the main process; None on the others.
        warn: receives a sentence on each problem.
    """

    processes: Processes
    key: str
    chunks: Mapping[Place, Chunk | Spot]
    file: TextIO | None
    warn: Callable[[str], None]
    _last: str = ""
    _pending: list[str] = field(default_factory=list)
    _misfits: int = 0

    @classmethod
    def open(cls, path: Path, identity: Any, processes: Processes, warn: Callable[[str], None]) -> Journal:
        """Open a journal, with its records if they belong to the same evaluation.

        Args:
            path: path of the file.
            identity: JSON value that distinguishes evaluations.
            processes: the processes that share the evaluation.
            warn: receives a sentence on each problem.

        Raises:
            RunError: the folder cannot be written.
        """
        text = json.dumps(identity, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        found, file = Records(), None
        if processes.main:
            found = read_records(path, key)
            for problem in found.problems:
                warn(f"{path} {problem}")
            with writing(f"the journal in {path.parent}", "Choose another folder with --out."):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = _opened(path, key, found)
        known: Mapping[Place, Chunk | Spot]
        if processes.world == 1:
            # They stay on the disk until they are asked for.
            known = dict(Tail(path, key).news()) if found.records else {}
        else:
            records = (decode(text, key) for text in processes.lines_from_main(found.records))
            known = {each.place: each.chunk() for each in records if each.process == processes.rank}
        return cls(processes, key, known, file, warn, found.last)

    def chunk(self, attack: int, number: int, batch: Batch, classes: int | None) -> Chunk | None:
        """Return the outcome of this process's attack on a batch, or None if it is to be attacked.

        Args:
            attack, number: numbers of the row and of the batch.
            batch: the samples that the outcome must be about.
            classes: number of classes of the task, if it has any.
        """
        found = self.chunks.get((self.processes.rank, attack, number))
        if isinstance(found, Spot):
            found = found.read(self.key)
        problem = "" if found is None else misfit(found, batch.index.tolist(), classes)
        if not problem:
            return found
        self._misfits += 1
        if self._misfits == 1:
            where = f"row {attack}, batch {number}"
            self.warn(f"a record of the journal ({where}) {problem}: it and others like it are made again")
        return None

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Record the outcome of this process's attack on a batch."""
        place = {"process": self.processes.rank, "attack": attack, "batch": number}
        self._pending.append(encode({**place, **asdict(chunk)}, self.key))
        if self.processes.world == 1:
            self._flush(self._pending)

    def end_of_attack(self) -> None:
        """Collect the records of all processes on the main process."""
        self._flush(self.processes.gather_lines(self._pending))

    def _flush(self, records: list[str]) -> None:
        if self.file is not None and records:
            lines, self._last = linked(records, self._last)
            with writing("the journal of the evaluation", "Its records are kept: start it again."):
                self.file.writelines(lines)
                self.file.flush()
        self._pending = []

    def close(self) -> None:
        """Close the file; it remains until `discard`, since the result is not written yet."""
        if self.file is not None:
            self.file.close()


def discard(path: Path) -> None:
    """Remove the journal of an evaluation whose result is written."""
    path.unlink(missing_ok=True)


def _opened(path: Path, key: str, found: Records) -> TextIO:
    """Open a journal to add records to; a damaged or foreign one is written anew, with its sound records."""
    if found.whole:
        os.truncate(path, found.whole)
    else:
        head, last = first_line(key)
        lines, found.last = linked(found.records, last)
        write_atomic(path, "".join([head, *lines]).encode())
    return path.open("a", encoding="utf-8")
