"""The launch of several processes: torchrun starts them all again when one has died."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..files.reading import Unreadable, read_json
from .folder import ENVIRONMENT, holds_run

LAUNCH = "launch"
"""Key of the agents of torchrun that began a run, in its environment.json."""
# Folders of the runs that this very process has begun.
_HERE: set[Path] = set()


def agent() -> str:
    """Return the name of the launch and of the agent that started this process; "" without torchrun.

    The name of the launch alone does not tell one from another: unless it is given, it is "none".
    """
    known = os.environ.get("TORCHELASTIC_RUN_ID")
    return "" if known is None else f"{known} {socket.gethostname()} {os.getppid()}"


def begun_here(folder: Path) -> None:
    """Note that this process begins a run: what it trains after a failure is another one."""
    _HERE.add(folder.resolve())


def began(folder: Path) -> bool:
    """Return whether a run was begun by processes of this launch that were started before these.

    Those were started by one of the agents that began it. An agent whose worker has died counts its restarts,
    one that only starts its workers again with the others does not. A job that Slurm queued again has other
    agents, and its number is the name of the launch.
    """
    own = agent()
    if not own or folder.resolve() in _HERE or not holds_run(folder):
        return False
    try:
        body = read_json(folder / ENVIRONMENT)
    except (OSError, Unreadable):
        return False
    known = body.get(LAUNCH) if isinstance(body, dict) else None
    if not isinstance(known, list):
        return False
    name, _, _ = own.partition(" ")
    named = name not in ("", "none") and any(str(each).startswith(f"{name} ") for each in known)
    return own in known or (named and _restarted())


def _restarted() -> bool:
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count not in ("", "0") for count in counts)
