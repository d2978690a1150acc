"""A part of an evaluation or an audit, as a job that a launcher carries out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue

from ..errors import Interrupted, RunError, ends_program
from ..files.reading import parse_json
from ..files.seals import Strict, parsed
from ..runs.lock import locked
from ..runs.result_types import Count
from .work import Failure, Job

if TYPE_CHECKING:
    from ..core.reporting import Reporter

Command = Literal["evaluate", "audit"]


class Part(Strict):
    """Describe a part of an evaluation or an audit by plain values.

    Attributes:
        command: what is done.
        model: run folder, file or name of the model.
        opening: arguments that open the model and its data.
        arguments: further arguments of the command.
        number, of: number of the part, and of all parts.
        shares: folder of the journals of all parts.
        folder: folder of this part's result.
        directory: folder that relative paths are relative to.
    """

    command: Command
    model: str
    opening: dict[str, JsonValue]
    arguments: dict[str, JsonValue]
    number: Count
    of: Count
    shares: str
    folder: str
    directory: str

    def carry_out(self, reporter: Reporter) -> Failure | None:
        """Do the part, and return its failure, if any; only interrupts are raised.

        Raises:
            Interrupted, KeyboardInterrupt: a stop signal was received.
        """
        from ..evaluation.commands.audit import audit_model
        from ..evaluation.commands.evaluate import evaluate_model
        from ..evaluation.setting import Share
        from ..subjects.opening import unaffected

        share = Share(self.number, self.of, Path(self.shares))
        opening: Any = {**self.opening, "reporter": reporter}
        command: Any = {"evaluate": evaluate_model, "audit": audit_model}[self.command]
        try:
            with locked(Path(self.folder)), unaffected():
                command(self.model, opening, Path(self.folder), share, **self.arguments)
        except Interrupted:
            raise
        except BaseException as error:
            if ends_program(error):
                raise
            failure = Failure.of(error)
            # What is wrong with the command is said in a sentence: the traceback says no more.
            return Failure(failure.reason, "") if isinstance(error, RunError) else failure
        return None


def parse_job(text: bytes) -> Job | Part:
    """Return the job of a JSON text: the work of a run, or a part of an evaluation.

    Raises:
        Unreadable: it is neither.
    """
    body = parse_json(text)
    if isinstance(body, dict) and "command" in body:
        return parsed(Part, body)
    return Job.parse(text)


def sendable(values: Any, what: str) -> Any:
    """Return values as JSON, with paths as text.

    Args:
        values: a tree of plain values.
        what: what they are, for the error.

    Raises:
        RunError: some are objects of this process.
    """
    try:
        return json.loads(json.dumps(values, default=_plain))
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{what} cannot be sent to other processes ({error}): give the model as a run folder or a file, "
            "and the data by the name of a task; or leave out processes and launcher"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return list(value)
    raise TypeError(f"a {type(value).__name__}")
