"""The records of a journal: their digests, their types, and whether they fit their samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...files.reading import Unreadable, open_file, parse_json
from ...files.seals import Strict, digest, opened, parsed, sealed
from ...runs.result_types import Amount, Count
from ...text.records import TextRecord

# Characters of a line that the program never writes.
LONGEST = 64 * 2**20
# Numbers of process, attack and batch.
Place = tuple[int, int, int]


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
        texts: of a task of texts, index and record of each sample.
        prepared: forward passes that the attack spent once for all batches of its row.
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
    texts: list[tuple[int, TextRecord]] = field(default_factory=list)
    prepared: int = 0


class Line(Strict):
    """A line: a record, a digest of it, and a digest of that and of all lines before."""

    record: dict[str, Any]
    own: str
    chain: str

    def decoded(self, key: str) -> Record:
        """Return the record of an evaluation.

        Raises:
            Unreadable: the record was changed, belongs to another evaluation, or is out of range.
        """
        return decode(f"{self.own} {json.dumps(self.record)}", key)


class Record(Strict):
    """A chunk with its place; see Chunk."""

    process: Count
    attack: Count
    batch: Count
    right: list[Count]
    counts: tuple[Count, Count, Count, Count]
    distances: list[tuple[Amount, Amount]]
    seconds: Amount
    measures: dict[str, list[float]]
    told: tuple[bool, Count, str] | None
    index: list[Count]
    predicted: list[Annotated[int, Field(ge=-1)]]
    confidence: list[float]
    texts: list[tuple[Count, TextRecord]]
    prepared: Count

    @property
    def place(self) -> Place:
        """Return the numbers of process, attack and batch."""
        return self.process, self.attack, self.batch

    def chunk(self) -> Chunk:
        """Return the outcome."""
        return Chunk(**self.model_dump(exclude={"process", "attack", "batch"}))


@dataclass
class Records:
    """Hold what was read of a journal.

    Attributes:
        records: sound records, as `encode` returns them, in the order of the file.
        whole: number of bytes up to the last whole line; 0 if the file must be written anew.
        last: digest that the next line follows from.
        problems: what was found damaged, as clauses that follow the name of the file.
    """

    records: list[str] = field(default_factory=list)
    whole: int = 0
    last: str = ""
    problems: list[str] = field(default_factory=list)


def first_line(key: str) -> tuple[str, str]:
    """Return the first line of an evaluation's journal, and the digest that the next one follows from."""
    head = sealed({"journal": "robustplug"}, evaluation=key)
    return json.dumps(head) + "\n", str(head["seal"]["sha256"])


def encode(record: dict[str, Any], key: str) -> str:
    """Return a record as text: its digest, a space, and its JSON.

    Args:
        record: the fields of a Record.
        key: digest of the evaluation that it belongs to.
    """
    return f"{digest([key, record])} {json.dumps(record)}"


def decode(text: str, key: str) -> Record:
    """Undo `encode`.

    Raises:
        Unreadable: the record was changed, belongs to another evaluation, or is out of range.
    """
    own, _, body = text.partition(" ")
    record = parse_json(body)
    if own != digest([key, record]):
        raise Unreadable("does not match its digest")
    return parsed(Record, record)


def linked(records: Iterable[str], last: str) -> tuple[list[str], str]:
    """Return the lines of records, each linked to the line before, and the digest of the last of them.

    Args:
        records: records, as `encode` returns them.
        last: digest of the line before.
    """
    lines = []
    for text in records:
        own, _, body = text.partition(" ")
        last = _follows(last, own)
        lines.append(f'{{"chain": "{last}", "own": "{own}", "record": {body}}}\n')
    return lines, last


def _follows(last: str, own: str) -> str:
    return hashlib.sha256(f"{last}{own}".encode()).hexdigest()


def read_records(path: Path, key: str) -> Records:
    """Read the sound records of a journal, also those after a damaged one.

    A record is sound if it has the digest of itself and of the evaluation, follows the line before it, and
    is of the right types.

    Args:
        path: path of the journal.
        key: digest of the evaluation that it must belong to.
    """
    found, bad, at = Records(), list[str](), 0
    try:
        for number, line in enumerate(_lines(path), start=1):
            at += len(line)
            if not line.endswith(b"\n"):
                break  # cut off when the process was killed
            try:
                if number == 1:
                    found.last = read_head(line, key)
                else:
                    _take(found, line, key)
            except Foreign as error:
                return Records(problems=[str(error)])
            except Unreadable as error:
                bad.append(f"line {number} {error}")
            found.whole = at
    except FileNotFoundError:
        return found
    except Unreadable as error:
        bad.append(str(error))
    if bad:
        more = f" (and {len(bad) - 1} more)" if bad[1:] else ""
        kept = f"{len(found.records)} sound records are kept, and the other batches are attacked again"
        found.problems.append(f"was damaged or changed: {bad[0]}{more}; {kept}")
        found.whole = 0
    return found


class Foreign(Exception):
    """A journal belongs to another evaluation; the message is a clause that follows its name."""


def _lines(path: Path) -> Iterator[bytes]:
    with open_file(path) as file:
        while line := file.readline(LONGEST):
            if len(line) == LONGEST:
                raise Unreadable(f"has a line of more than {LONGEST} bytes")
            yield line


def read_head(line: bytes, key: str) -> str:
    """Return the digest that the second line of a journal follows from.

    Raises:
        Foreign: the journal is not of this evaluation.
        Unreadable: it is no such line.
    """
    body = parse_json(line)
    if isinstance(body, dict) and body.keys() == {"evaluation"}:
        raise Foreign("was written by an earlier version: it is not used, and the evaluation starts anew")
    _, belongs = opened(body)
    if belongs != {"evaluation": key}:
        raise Foreign(
            "belongs to another evaluation (other weights, data, attacks or options): it is not used, and "
            "this one starts anew"
        )
    return str(body["seal"]["sha256"])


def _take(found: Records, line: bytes, key: str) -> None:
    """Add the record of a line, if it is sound.

    Raises:
        Unreadable: the record is damaged, or does not follow the line before.
    """
    body = read_line(line)
    before, found.last = found.last, body.chain
    check_line(body, before, key)
    found.records.append(f"{body.own} {json.dumps(body.record)}")


def read_line(line: bytes) -> Line:
    """Return what a line of a journal says.

    Raises:
        Unreadable: it is no such line.
    """
    return parsed(Line, parse_json(line))


def check_line(line: Line, before: str, key: str) -> Record:
    """Return the record of a line.

    Raises:
        Unreadable: the record is damaged, or does not follow the line before.
    """
    if line.chain != _follows(before, line.own):
        raise Unreadable("does not follow the line before it: a line was changed, moved or removed")
    return line.decoded(key)


def misfit(chunk: Chunk, index: Sequence[int], classes: int | None) -> str:
    """Return why an outcome is not one of these samples, as a clause; "" if it fits.

    Args:
        chunk: the outcome.
        index: indices of the samples of the batch.
        classes: number of classes of the task, if it has any.
    """
    rows, own = len(index), set(index)
    lengths = {len(chunk.predicted), len(chunk.confidence) or len(chunk.index)}
    tests = {
        "is about another number of samples": chunk.counts[0] == rows,
        "rejects more results than it has": chunk.counts[1] <= rows,
        "is about other samples": set(chunk.right) <= own and len(set(chunk.right)) == len(chunk.right),
        "has more distances than broken samples": len(chunk.distances) <= rows - len(chunk.right),
        "has measures of other samples": all(len(each) == rows for each in chunk.measures.values()),
        "describes another sample": chunk.told is None or chunk.told[1] in own,
        "predicts other samples": chunk.index in ([], list(index)),
        "has not a prediction for each sample": lengths == {len(chunk.index)},
        "predicts classes that do not exist": max(chunk.predicted, default=-1) < (classes or 0),
        "has a confidence outside [0, 1]": all(not v < 0 and not v > 1 for v in chunk.confidence),
    }
    return next((text for text, holds in tests.items() if not holds), "")
