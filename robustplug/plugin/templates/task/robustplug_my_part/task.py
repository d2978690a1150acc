"""The data of my-part."""

from __future__ import annotations

import math

import torch
from robustplug.api import ArrayTask, Split, stream
from torch import Tensor

from . import MyPartOptions

SIZES: dict[Split, int] = {"train": 600, "validation": 150, "test": 300}


def spirals(size: int, classes: int, noise: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw points on spirals around the middle of the unit square.

    Returns:
        Inputs float32 (size, 2) in [0, 1], and labels int64 (size,) from 0 to classes − 1.
    """
    labels = torch.arange(size) % classes
    way = torch.empty(size).uniform_(0.1, 1, generator=rng)
    angle = 2 * math.pi * (labels / classes + way)
    points = 0.5 + 0.45 * way[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    points = points + noise * torch.empty(size, 2).normal_(generator=rng)
    return points.clamp(0, 1), labels


class MyPart(ArrayTask):
    """Serve the spirals.

    Args:
        options: see MyPartOptions.
    """

    def __init__(self, options: MyPartOptions) -> None:
        rng = stream(options.seed, "my-part")
        data = {split: spirals(size, options.classes, options.noise, rng) for split, size in SIZES.items()}
        super().__init__(data, classes=options.classes)
