"""End with one message and an exit code; keep the traceback of what nobody expected in a file."""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from pathlib import Path

from .echo import echo
from .ranks import first_process

# The exit code of an exception that nobody expected; sysexits.h calls it EX_SOFTWARE.
BUG = 70


def end(error: Exception, debug: bool) -> int:
    """Print an error and return the exit code.

    Args:
        error: the exception that reached the command line.
        debug: whether to print the traceback, too, instead of writing it to a file.
    """
    message, code, folder = described(error)
    if debug:
        echo("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    elif code == BUG:
        message += _written("".join(traceback.format_exception(error)), folder)
    if first_process():
        echo(message, err=True)
    elif code == BUG:
        # A failure of one process alone is not printed by the first.
        echo(f"process {os.environ['RANK']}: {message}", err=True)
    return code


def described(error: Exception) -> tuple[str, int, Path | None]:
    """Return the message of an error, its exit code, and the run folder that the traceback belongs to."""
    from ..errors import BrokenData, DataMissing, Failed, Interrupted, Refused, RunError, out_of_memory
    from ..plugin.culprit import UNKNOWN, culprit, failed
    from ..plugin.registry import DuplicateComponent, UnknownComponent
    from ..recipe.errors import RecipeError

    if isinstance(error, Interrupted):
        return str(error), error.exit_code, None
    if isinstance(error, Failed):
        return str(error), BUG, error.folder
    known = (RunError, RecipeError, UnknownComponent, DuplicateComponent, Refused, DataMissing, BrokenData)
    if isinstance(error, known):
        return str(error), 2, None
    if out_of_memory(error):
        who = culprit(error)
        running = "" if who == UNKNOWN else f" while {who.name} was running"
        lower = "lower the batch size, the number of samples, or the size of the model"
        return f"memory is exhausted{running}: {lower}", 2, None
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{place}{error.strerror}", 2, None
    return str(failed(error)), BUG, None


def _written(details: str, folder: Path | None) -> str:
    """Write a traceback to failure.txt in a run folder, or else to a temporary file; return a sentence."""
    from ..runs.folder import holds_run

    with contextlib.suppress(OSError):
        if folder is not None and holds_run(folder):
            path = folder / "failure.txt"
            path.write_text(details, encoding="utf-8", errors="replace")
            return f" The traceback is in {path}."
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="replace", prefix="robustplug-", suffix=".txt", delete=False
        ) as file,
    ):
        file.write(details)
        return f" The traceback is in {file.name}."
    return " For the traceback, repeat the command with --debug."
