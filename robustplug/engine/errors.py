"""What stops a run without a traceback."""

from __future__ import annotations


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
