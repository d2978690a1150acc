"""The launch of several processes: torchrun starts them again when one has died."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..files.reading import Unreadable, read_json
from .folder import ENVIRONMENT, holds_run

LAUNCH = "launch"
"""Key of the launch that began a run, in its environment.json."""


def launch() -> str:
    """Return the name of the launch that this process belongs to; "" if torchrun did not start it.

    torchrun names all launches alike unless it is told otherwise, so the agent that started this process is
    part of the name.
    """
    known = os.environ.get("TORCHELASTIC_RUN_ID")
    return "" if known is None else f"{known} {socket.gethostname()} {os.getppid()}"


def restarted() -> bool:
    """Return whether this process stands for one that died, or its job was queued again by Slurm."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count not in ("", "0") for count in counts)


def began(folder: Path) -> bool:
    """Return whether a run was begun by processes of this launch that were started before these."""
    own = launch()
    if not own or not restarted() or not holds_run(folder):
        return False
    try:
        body = read_json(folder / ENVIRONMENT)
    except (OSError, Unreadable):
        return False
    return isinstance(body, dict) and _same(str(body.get(LAUNCH, "")), own)


def _same(one: str, other: str) -> bool:
    """Return whether two names are those of one launch; a rank may be on another node after a restart."""
    (first, *_), (second, *_) = one.split(" "), other.split(" ")
    return one == other or (first == second and first not in ("", "none"))
