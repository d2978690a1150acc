"""What the processes of one launch do for test_elastic.py: train on for a while, or to the end.

Usage: python -m torch.distributed.run --nproc-per-node N -m engine.elastic FOLDER COUNT|all
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.training.session import Session
from robustplug.training.train import Training

from .runs import merged
from .two_processes import Killed, exact

# A perturbation for each row of a batch, and a memory of each sample.
METHODS = ("free-at", "cat")


def recipe(method: str) -> dict[str, Any]:
    """Return a recipe whose outcome depends on the number of processes through rounding alone."""
    return merged(exact(method), {"train": {"checkpoint_batches": 1}})


def trained(settings: dict[str, Any], folder: Path, checkpoints: int | None) -> None:
    """Train, or go on, until a number of checkpoints is written; None to the end."""
    save, count = Training._save, 0

    def save_and_die(self: Training, session: Session) -> None:
        nonlocal count
        save(self, session)
        count += 1
        if count == checkpoints:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_save", save_and_die)
        try:
            if folder.exists():
                robustplug.train(resume=folder)
            else:
                robustplug.train(settings, out=folder)
        except Killed:
            assert checkpoints is not None


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in METHODS:
        trained(recipe(name), Path(sys.argv[1]) / name, None if sys.argv[2] == "all" else int(sys.argv[2]))
