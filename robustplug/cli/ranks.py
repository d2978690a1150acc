"""Only the first of several processes that run the same command prints."""

from __future__ import annotations

import os


def first_process() -> bool:
    """Return whether this process prints and writes; torchrun and accelerate set its number in RANK."""
    return os.environ.get("RANK", "0") == "0"
