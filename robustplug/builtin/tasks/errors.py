"""Where data is looked for, and what is raised when it is not there or not readable."""

from __future__ import annotations

import os
from pathlib import Path


class DataMissing(ValueError):
    """The files of a task are not where they were looked for."""


class BrokenData(ValueError):
    """A data file cannot be read."""


def data_root(root: str | None) -> Path:
    """Return the folder that data is looked for in: the option, else ROBUSTPLUG_DATA, else "data"."""
    return Path(root or os.environ.get("ROBUSTPLUG_DATA") or "data").expanduser()
