"""Exceptions that are shown as messages, without a traceback. Importing this module does not import torch."""

from __future__ import annotations


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


class Interrupted(Exception):
    """A signal stopped the run after its checkpoint was written.

    Attributes:
        exit_code: exit code of the command, 128 plus the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
