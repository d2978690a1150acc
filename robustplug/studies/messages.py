"""The messages between a study and its workers: lines of JSON, of bounded length and known types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import IO, Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from ..core.reporting import Reporter
from ..core.types import EpochReport, Progress, RunInfo
from ..files.reading import Unreadable, parse_json
from ..files.seals import Strict, parsed
from ..runs.result_types import Count

# Bytes of a line, and characters of a text in it, which JSON may make six times as long.
LONGEST, LONGEST_TEXT = 2**20, 2**16


def _with_loss(means: dict[str, float]) -> dict[str, float]:
    if "loss" not in means:
        raise ValueError("the loss is missing")
    return means


class Position(Strict):
    """A Progress."""

    epoch: Count
    epochs: Count
    batch: Count
    batches: Count
    update: Count
    updates: Count


class Info(Strict):
    """A RunInfo."""

    name: str
    folder: str
    method: str
    task: str
    model: str
    epochs: Count
    resumed_at_epoch: Count | None
    observers: tuple[str, ...]
    score: str


class Report(Strict):
    """An EpochReport."""

    epoch: Count
    train: dict[str, float]
    validation: dict[str, float]
    lr: float
    seconds: float
    best: bool


class Begin(Strict):
    """Training starts or resumes."""

    kind: Literal["begin"]
    run: Info
    progress: Position


class Batch(Strict):
    """A batch of training is done."""

    kind: Literal["batch"]
    progress: Position
    means: Annotated[dict[str, float], AfterValidator(_with_loss)]


class Epoch(Strict):
    """An epoch is done."""

    kind: Literal["epoch"]
    report: Report
    epochs: Annotated[Count, Field(ge=1)]


class Attack(Strict):
    """A part of an evaluation is done."""

    kind: Literal["attack"]
    name: str
    done: Count
    total: Count


class Warn(Strict):
    """A warning."""

    kind: Literal["warn"]
    message: str


class Ended(Strict):
    """The job is done, or was stopped."""

    kind: Literal["done", "stopped"]


class Failed(Strict):
    """The job failed."""

    kind: Literal["failed"]
    reason: str
    details: str


Message = Begin | Batch | Epoch | Attack | Warn | Ended | Failed
KINDS: Mapping[str, type[Message]] = {
    "begin": Begin,
    "batch": Batch,
    "epoch": Epoch,
    "attack": Attack,
    "warn": Warn,
    "done": Ended,
    "stopped": Ended,
    "failed": Failed,
}


class Work(Strict):
    """A Job."""

    recipe: dict[str, JsonValue]
    folder: str
    train: bool
    resume: bool
    suite: str | None
    audit: bool
    device: str
    observers: list[str]


def encode(kind: str, **values: Any) -> str:
    """Return a message as a line; long texts are cut."""
    return json.dumps({"kind": kind, **{name: _cut(value) for name, value in values.items()}}) + "\n"


def _cut(value: Any) -> Any:
    """Keep the end of a long text: that of a traceback is its reason."""
    return value[-LONGEST_TEXT:] if isinstance(value, str) else value


def decode(line: bytes) -> Message:
    """Return the message of a line.

    Raises:
        Unreadable: it is not a message.
    """
    body = parse_json(line)
    kind = body.get("kind") if isinstance(body, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise Unreadable("is of no known kind")
    return parsed(KINDS[kind], body)


def read_messages(stream: IO[bytes]) -> Iterator[Message | str]:
    """Yield the messages of a stream, and for each line that is none, why not.

    A last line without an end was cut off when the process was killed, and is left out.
    """
    while line := stream.readline(LONGEST):
        if line.endswith(b"\n"):
            try:
                yield decode(line)
            except Unreadable as error:
                yield str(error)
        elif len(line) == LONGEST:
            while (line := stream.readline(LONGEST)) and not line.endswith(b"\n"):
                pass
            yield f"is longer than {LONGEST} bytes"


def pass_on(message: Message, reporter: Reporter) -> None:
    """Pass a message of a worker on to a reporter."""
    match message:
        case Begin(run=run, progress=progress):
            reporter.begin(RunInfo(**run.model_dump()), Progress(**progress.model_dump()))
        case Batch(progress=progress, means=means):
            reporter.batch(Progress(**progress.model_dump()), means)
        case Epoch(report=report, epochs=epochs):
            reporter.epoch(EpochReport(**report.model_dump()), epochs)
        case Attack(name=name, done=done, total=total):
            reporter.attack(name, done, total)
        case Warn(message=text):
            reporter.warn(text)


class Relay:
    """Turn the reports of a run into messages.

    Args:
        write: function that takes a line.
    """

    def __init__(self, write: Any) -> None:
        self._write = write

    def send(self, kind: str, **values: Any) -> None:
        """Write a message."""
        self._write(encode(kind, **values))

    def begin(self, run: RunInfo, progress: Progress) -> None:
        """Pass it on."""
        self.send("begin", run=asdict(run), progress=asdict(progress))

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        """Pass it on."""
        self.send("batch", progress=asdict(progress), means=dict(means))

    def epoch(self, report: EpochReport, epochs: int) -> None:
        """Pass it on."""
        self.send("epoch", report=asdict(report), epochs=epochs)

    def attack(self, name: str, done: int, total: int) -> None:
        """Pass it on."""
        self.send("attack", name=name, done=done, total=total)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.send("warn", message=message)
