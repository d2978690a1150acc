"""What is raised to be explained, not to be traced. Importing this does not import torch."""

from __future__ import annotations


class DataMissing(ValueError):
    """The files of a task are not where they were looked for."""


class BrokenData(ValueError):
    """A data file cannot be read."""


class Refused(ValueError):
    """An attack cannot be run on this model, task or threat model; the message says why.

    An evaluation notes the reason in the attack's row and goes on with the next.
    """


class RunError(Exception):
    """A run cannot go on; the message says why, what is kept, and how to mend it."""


class Interrupted(Exception):
    """A signal stopped the run after its checkpoint was written.

    Attributes:
        exit_code: 128 plus the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
