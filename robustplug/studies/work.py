"""Do the remaining work of a study's run, in this process or in a worker."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.reporting import Reporter
from ..errors import Interrupted, RunError, ends_program
from ..files.reading import parse_json
from ..files.seals import parsed
from ..runs.folder import EVALUATIONS
from .messages import Work


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

    @classmethod
    def parse(cls, line: bytes) -> Job:
        """Return the job of a line of JSON.

        Raises:
            Unreadable: it is not a job.
        """
        return cls(**parsed(Work, parse_json(line)).model_dump())


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
    except BaseException as error:
        if ends_program(error):
            raise
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        return Failure(reason, "".join(traceback.format_exception(error)))
    return None
