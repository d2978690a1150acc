"""The zoo: honest and masked models, each with its data and its threat model."""

from __future__ import annotations

from pathlib import Path

from .entries import Entry
from .honest import honest
from .masked import masked
from .workshop import Workshop


def zoo(cache: Path | None = None, mnist: Path | None = None) -> list[Entry]:
    """Return all models; each is made, or read from the cache, when `make` is called.

    Args:
        cache: folder for trained weights; None to train them again in each process.
        mnist: folder that torchvision reads MNIST from, for a few models more.
    """
    shop = Workshop(cache, mnist)
    return [*honest(shop), *masked(shop)]
