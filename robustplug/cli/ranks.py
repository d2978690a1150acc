"""Of several processes that run the same command, one speaks."""

from __future__ import annotations

import os


def first_process() -> bool:
    """Tell whether this process prints and writes: torchrun and accelerate number them in RANK."""
    return os.environ.get("RANK", "0") == "0"
