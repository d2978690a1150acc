"""Turn what fails during training into one message: what failed, where, what is kept, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import (
    BrokenData,
    DataMissing,
    Interrupted,
    Refused,
    RunError,
    ends_program,
    not_deterministic,
    out_of_memory,
)
from ..plugin.culprit import UNKNOWN, culprit, failed, no_memory
from ..recipe.errors import RecipeError

if TYPE_CHECKING:
    from ..subjects.assemble import Parts
    from .session import Session


@dataclass
class Place:
    """State where a run is.

    Attributes:
        session: the session of the training; None before it starts.
        evaluating: whether the training is over.
    """

    session: Session | None = None
    evaluating: bool = False

    def __str__(self) -> str:
        if self.evaluating:
            return "the evaluation after training"
        if self.session is None:
            return "the preparation of training"
        epoch, batch, batches = self.session.epoch + 1, self.session.batch, self.session.loop.batches
        if batch == batches:
            return f"the validation after epoch {epoch}"
        return f"epoch {epoch}, batch {batch + 1} of {batches}"

    @property
    def table(self) -> str:
        """Return the table of the recipe whose batch size counts here."""
        if self.evaluating:
            return "evaluate"
        return "validate" if "validation" in str(self) else "train"


@contextlib.contextmanager
def explained(place: Place, kept: Callable[[], str], parts: Parts, folder: Path) -> Iterator[None]:
    """Turn the exceptions that components raise in a block into errors that the command line shows.

    Other exceptions, such as those of the caller's reporter, get a note on place and checkpoint.

    Args:
        place: where the run is.
        kept: returns a sentence on the last good checkpoint.
        parts: the parts of the run.
        folder: the run folder.

    Raises:
        RunError: a component raises an exception, which is the cause, or memory is exhausted.
    """
    try:
        yield
    except (RunError, RecipeError, Interrupted):
        raise
    except (Refused, DataMissing, BrokenData) as reason:
        raise RunError(f"{str(reason).rstrip('.')}. {kept()}") from reason
    except BaseException as error:
        if ends_program(error):
            raise
        if not out_of_memory(error):
            if culprit(error) == UNKNOWN and not not_deterministic(error):
                error.add_note(f"This happened in {place}. {kept()}")
                raise
            raise failed(error, str(place), kept(), folder) from error
        rows: int = getattr(parts.recipe, place.table).batch_size
        if place.table == "train":
            rows = min(rows, parts.task.info.sizes["train"])
        found = no_memory(error, f"{place.table}.batch_size", rows, str(place))
        if place.table == "train":
            found += " A run keeps its batch size: start another with --set, or let --fit-batch choose it."
        raise RunError(f"{found} {kept()}") from error
