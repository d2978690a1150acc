"""Note what an evaluation has done, batch by batch, so that a killed one goes on."""

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


@dataclass(frozen=True)
class Chunk:
    """What an attack did to one batch.

    Attributes:
        right: indices of the samples that are still right.
        counts: rows, rejected results, forwards and backwards.
        distances: (L∞, L2) of each example that broke a sample.
        seconds: wall time.
        measures: numbers of each sample, by name; NaN for none.
        told: index and text of one sample, first whether it was broken: (broken, index, text).
    """

    right: list[int]
    counts: tuple[int, int, int, int]
    distances: list[tuple[float, float]]
    seconds: float
    measures: dict[str, list[float]] = field(default_factory=dict)
    told: tuple[bool, int, str] | None = None


class Quiet:
    """Note nothing."""

    def chunk(self, attack: int, number: int) -> Chunk | None:
        """Know nothing."""
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

    A line is written whole or, after a kill, is the last one and broken; that one is ignored. Only the
    main process writes: the notes of the others reach it when an attack ends. What an attack refused is
    not noted: what was missing may be there next time.

    Attributes:
        processes: share the evaluation.
        chunks: what is known, by process, attack and batch.
        file: open for the main process.
    """

    processes: Processes
    chunks: dict[tuple[int, int, int], Chunk]
    file: TextIO | None
    _pending: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, identity: Any, processes: Processes) -> Journal:
        """Open a journal, with what it knows if it is about the same evaluation.

        Args:
            path: of the file.
            identity: JSON value that tells evaluations apart.
            processes: share the evaluation.

        Raises:
            RunError: the folder cannot be written.
        """
        text = json.dumps(identity, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        lines: list[str] = []
        file = None
        if processes.main:
            lines, sound = _read(path, key)
            with writing(f"notes of the evaluation in {path.parent}", "Choose another folder with --out."):
                path.parent.mkdir(parents=True, exist_ok=True)
                if sound:
                    os.truncate(path, sound)
                else:
                    path.write_text(json.dumps({"evaluation": key}) + "\n", encoding="utf-8")
                file = path.open("a", encoding="utf-8")
        chunks = dict(_parsed(line) for line in processes.lines_from_main(lines))
        return cls(processes, chunks, file)

    def chunk(self, attack: int, number: int) -> Chunk | None:
        """Return what this process did to a batch, or None."""
        return self.chunks.get((self.processes.rank, attack, number))

    def add(self, attack: int, number: int, chunk: Chunk) -> None:
        """Note what this process did to a batch."""
        place = {"process": self.processes.rank, "attack": attack, "batch": number}
        self._pending.append(json.dumps({**place, **asdict(chunk)}) + "\n")
        if self.processes.world == 1:
            self._flush(self._pending)

    def end_of_attack(self) -> None:
        """Bring the notes of all processes to the main one."""
        self._flush(self.processes.gather_lines(self._pending))

    def _flush(self, lines: list[str]) -> None:
        if self.file is not None:
            with writing("the notes of the evaluation", "What is noted is kept: start it again."):
                self.file.writelines(lines)
                self.file.flush()
        self._pending = []

    def close(self) -> None:
        """Close the file; it stays until `discard`, since the result is not written yet."""
        if self.file is not None:
            self.file.close()


def discard(path: Path) -> None:
    """Remove the journal of an evaluation whose result is written."""
    path.unlink(missing_ok=True)


def _read(path: Path, key: str) -> tuple[list[str], int]:
    """Return the known lines and how many bytes of the file are sound."""
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
