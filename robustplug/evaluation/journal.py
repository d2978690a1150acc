"""Record the progress of an evaluation batch by batch, so that a killed one can resume."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..runs.folder import writing

if TYPE_CHECKING:
    from ..devices.processes import Processes


# Part of every evaluation's identity: records of an earlier version lack what this one needs.
JOURNAL_FORMAT = 2


@dataclass(frozen=True)
class Chunk:
    """The outcome of an attack on one batch.

    Attributes:
        right: indices of the samples that are still correct.
        counts: numbers of rows, rejected results, forward passes and backward passes.
        distances: (L∞, L2) of each successful adversarial example.
        seconds: wall time.
        measures: values of each sample, by name; NaN for none.
        told: description of one sample: whether it was broken, its index, its text.
        index: indices of all samples.
        predicted: predicted class of each of them; empty if the task has no classes.
        confidence: probability of each prediction, for the clean row.
    """

    right: list[int]
    counts: tuple[int, int, int, int]
    distances: list[tuple[float, float]]
    seconds: float
    measures: dict[str, list[float]] = field(default_factory=dict)
    told: tuple[bool, int, str] | None = None
    index: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)


class Quiet:
    """Record nothing."""

    def chunk(self, attack: int, number: int) -> Chunk | None:
        """Return None."""
        return None

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Ignore it."""

    def end_of_attack(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Journal:
    """A file of JSON lines: its identity first, then a line for each batch of each process.

    After a kill, only the last line can be incomplete; it is ignored. Only the main process writes: it
    receives the records of the others when an attack ends. Refusals are not recorded, because their cause
    may be gone next time.

    Attributes:
        processes: the processes that share the evaluation.
        chunks: known outcomes, by process, attack and batch.
        file: the open file on the main process; None on the others.
    """

    processes: Processes
    chunks: dict[tuple[int, int, int], Chunk]
    file: TextIO | None
    _pending: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, identity: Any, processes: Processes) -> Journal:
        """Open a journal, with its records if they belong to the same evaluation.

        Args:
            path: path of the file.
            identity: JSON value that distinguishes evaluations.
            processes: the processes that share the evaluation.

        Raises:
            RunError: the folder cannot be written.
        """
        text = json.dumps(identity, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        lines: list[str] = []
        file = None
        if processes.main:
            lines, sound = _read(path, key)
            with writing(f"the journal in {path.parent}", "Choose another folder with --out."):
                path.parent.mkdir(parents=True, exist_ok=True)
                if sound:
                    os.truncate(path, sound)
                else:
                    path.write_text(json.dumps({"evaluation": key}) + "\n", encoding="utf-8")
                file = path.open("a", encoding="utf-8")
        chunks = dict(_parsed(line) for line in processes.lines_from_main(lines))
        return cls(processes, chunks, file)

    def chunk(self, attack: int, number: int) -> Chunk | None:
        """Return the outcome of this process's attack on a batch, or None."""
        return self.chunks.get((self.processes.rank, attack, number))

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Record the outcome of this process's attack on a batch."""
        place = {"process": self.processes.rank, "attack": attack, "batch": number}
        self._pending.append(json.dumps({**place, **asdict(chunk)}) + "\n")
        if self.processes.world == 1:
            self._flush(self._pending)

    def end_of_attack(self) -> None:
        """Collect the records of all processes on the main process."""
        self._flush(self.processes.gather_lines(self._pending))

    def _flush(self, lines: list[str]) -> None:
        if self.file is not None:
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


def _read(path: Path, key: str) -> tuple[list[str], int]:
    """Return the intact records, and the number of intact bytes of the file."""
    lines: list[str] = []
    sound = 0
    try:
        with path.open("rb") as file:
            for line in file:
                body = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(body, dict) or (not sound and body.get("evaluation") != key):
                    break
                if sound:
                    _parsed(line.decode())
                    lines.append(line.decode())
                sound += len(line)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return lines, sound


def _parsed(line: str) -> tuple[tuple[int, int, int], Chunk]:
    body = json.loads(line)
    place = (body.pop("process"), body.pop("attack"), body.pop("batch"))
    pairs = [(linf, l2) for linf, l2 in body["distances"]]
    told = None if body["told"] is None else tuple(body["told"])
    return place, Chunk(**{**body, "counts": tuple(body["counts"]), "distances": pairs, "told": told})
