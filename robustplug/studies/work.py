"""Do the remaining work of a study's run, in this process or in a worker."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.reporting import Reporter
from ..errors import Interrupted, RunError, ends_program
from ..files.reading import parse_json
from ..files.seals import parsed
from ..runs.folder import EVALUATIONS, holds_run, is_finished
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
        directory: folder that relative paths of the recipe are relative to; "" for that of the process.
    """

    recipe: Mapping[str, Any]
    folder: str
    train: bool
    resume: bool
    suite: str | None
    audit: bool
    device: str
    observers: list[str] = field(default_factory=list)
    directory: str = ""

    @classmethod
    def parse(cls, text: bytes) -> Job:
        """Return the job of a JSON text.

        Raises:
            Unreadable: it is not a job.
        """
        return cls(**parsed(Work, parse_json(text)).model_dump())


@dataclass(frozen=True)
class Failure:
    """Hold why a run failed: the reason in one line, and the traceback."""

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return what an exception says."""
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        return cls(reason, "".join(traceback.format_exception(error)))


TRAINED, EVALUATED, AUDITED = "training", "suite", "audit"


def carry_out(
    job: Job,
    commands: Commands,
    reporter: Reporter,
    done: Collection[str] = (),
    finish: Callable[[str], object] = lambda part: None,
) -> Failure | None:
    """Do a job and return its failure, if any; only interrupts are raised.

    Args:
        job: the job.
        commands: the functions of the Python API.
        reporter: receives progress.
        done: parts that are done already, if the job was stopped and starts again.
        finish: receives each part that is done.

    Raises:
        Interrupted, KeyboardInterrupt: a stop signal was received.
    """
    folder = Path(job.folder)
    more = {"out": folder / EVALUATIONS, "device": job.device, "reporter": reporter}
    try:
        if job.train and TRAINED not in done:
            # A job that starts again, on another node perhaps, finds what it has left.
            resume = job.resume or holds_run(folder)
            if not (resume and is_finished(folder)):
                more_training = {"resume": resume, "observers": job.observers, "reporter": reporter}
                commands.train(job.recipe, out=folder, **more_training)
            finish(TRAINED)
        if job.suite is not None and EVALUATED not in done:
            commands.evaluate(folder, suite=Path(job.suite), **more)
            finish(EVALUATED)
        if job.audit and AUDITED not in done:
            commands.audit(folder, **more)
            finish(AUDITED)
    except Interrupted:
        raise
    except BaseException as error:
        if ends_program(error):
            raise
        return Failure.of(error)
    return None
