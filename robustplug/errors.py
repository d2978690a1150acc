"""What components raise for the engine to explain. Importing this does not import torch."""

from __future__ import annotations


class DataMissing(ValueError):
    """The files of a task are not where they were looked for."""


class BrokenData(ValueError):
    """A data file cannot be read."""


class Refused(ValueError):
    """An attack cannot be run on this model, task or threat model; the message says why.

    An evaluation notes the reason in the attack's row and goes on with the next.
    """
