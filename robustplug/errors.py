"""What a task raises when its data is not as it should be. Importing this does not import torch."""

from __future__ import annotations


class DataMissing(ValueError):
    """The files of a task are not where they were looked for."""


class BrokenData(ValueError):
    """A data file cannot be read."""
