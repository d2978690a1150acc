"""Do the remaining work of a study's run, in this process or in a worker that reports progress."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.reporting import Reporter
from ..core.types import EpochReport, Progress, RunInfo
from ..errors import Interrupted, RunError
from ..runs.folder import EVALUATIONS


@dataclass(frozen=True)
class Commands:
    """Hold the functions of the Python API that a run needs."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    audit: Callable[..., Any]


@dataclass(frozen=True)
class Job:
    """Describe the work of one run by plain values, so that it can be sent to another process.

    Attributes:
        recipe: tables of the recipe.
        folder: the run folder.
        train: whether training is not finished.
        resume: whether training has started already.
        suite: file of the suite to evaluate with; None for none.
        audit: whether to audit the model.
        device: device of the evaluation.
        observers: names of the plugins that observe the training.
    """

    recipe: Mapping[str, Any]
    folder: str
    train: bool
    resume: bool
    suite: str | None
    audit: bool
    device: str
    observers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """Hold why a run failed: the reason in one line, and the traceback."""

    reason: str
    details: str


def carry_out(job: Job, commands: Commands, reporter: Reporter) -> Failure | None:
    """Do a job and return its failure, if any; only interrupts are raised.

    Raises:
        Interrupted, KeyboardInterrupt: a stop signal was received.
    """
    folder = Path(job.folder)
    more = {"out": folder / EVALUATIONS, "device": job.device, "reporter": reporter}
    try:
        if job.train:
            more_training = {"resume": job.resume, "observers": job.observers, "reporter": reporter}
            commands.train(job.recipe, out=folder, **more_training)
        if job.suite is not None:
            commands.evaluate(folder, suite=Path(job.suite), **more)
        if job.audit:
            commands.audit(folder, **more)
    except Interrupted:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        return Failure(reason, "".join(traceback.format_exception(error)))
    return None


class Relay:
    """Turn the reports of a run into lines of JSON.

    Args:
        write: function that takes a line.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def send(self, kind: str, **values: Any) -> None:
        """Write a message."""
        self._write(json.dumps({"kind": kind, **values}) + "\n")

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


def pass_on(message: Mapping[str, Any], reporter: Reporter) -> None:
    """Pass a message of a Relay on to a reporter."""
    kind = message["kind"]
    if kind == "begin":
        run = {**message["run"], "observers": tuple(message["run"]["observers"])}
        reporter.begin(RunInfo(**run), Progress(**message["progress"]))
    elif kind == "batch":
        reporter.batch(Progress(**message["progress"]), message["means"])
    elif kind == "epoch":
        reporter.epoch(EpochReport(**message["report"]), message["epochs"])
    elif kind == "attack":
        reporter.attack(message["name"], message["done"], message["total"])
    elif kind == "warn":
        reporter.warn(message["message"])
