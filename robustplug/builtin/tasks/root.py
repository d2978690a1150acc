"""The data folder."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(root: str | None) -> Path:
    """Return the data folder: the option, else ROBUSTPLUG_DATA, else "data"."""
    return Path(root or os.environ.get("ROBUSTPLUG_DATA") or "data").expanduser()
