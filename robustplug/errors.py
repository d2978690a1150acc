"""Exceptions that are shown as messages, without a traceback. Importing this module does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DataMissing(ValueError):
    """The files of a task do not exist in the expected place."""


class BrokenData(ValueError):
    """A data file cannot be read."""


class Refused(ValueError):
    """An attack cannot be run on this model, task or threat model; the message states why.

    An evaluation records the reason in the attack's row and continues with the next row.
    """


class RunError(Exception):
    """A run cannot continue; the message states why, what is kept, and how to fix it."""


class Failed(RunError):
    """A component, or robustplug itself, raised an exception that nobody expected: `__cause__`.

    Attributes:
        folder: the run folder, where the command line writes the traceback; None for none.
    """

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class Interrupted(Exception):
    """A signal stopped the run after its checkpoint was written.

    Attributes:
        exit_code: exit code of the command, 128 plus the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# What torch and its devices write where they raise no exception of its own for it.
_NO_MEMORY = re.compile(
    "DefaultCPUAllocator|out of memory|can(no|')t allocate memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE
)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those behind it, the first cause last."""
    known: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in known:
        known.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def not_deterministic(error: BaseException) -> str | None:
    """Return the operation that failed for want of a deterministic algorithm; None if none did."""
    texts = (str(link) for link in chain(error) if isinstance(link, RuntimeError))
    found = next(filter(None, map(_NOT_DETERMINISTIC.search, texts)), None)
    return None if found is None else found[1]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one behind it, states that memory is exhausted."""
    return any(
        isinstance(link, MemoryError)
        or type(link).__name__ == "OutOfMemoryError"
        or (isinstance(link, RuntimeError | OSError) and _NO_MEMORY.search(str(link)) is not None)
        for link in chain(error)
    )


def ends_program(error: BaseException) -> bool:
    """Return whether an exception must reach the top as it is: Ctrl-C, or rich's exit once nobody reads.

    Every other exception of a component, SystemExit included, is a failure of that component.
    """
    if isinstance(error, SystemExit):
        return any(isinstance(link, BrokenPipeError) for link in chain(error))
    return type(error) is KeyboardInterrupt
