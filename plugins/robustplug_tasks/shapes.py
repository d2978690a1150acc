"""Grey images with drawn shapes: circles, squares and crosses, on a darker ground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustplug.api import Split, stream

KINDS = ("circle", "square", "cross")
"""The shapes; pixel class 0 is the ground, 1 and above are these."""


def drawn(samples: int, size: int, noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images with up to three shapes, at most one of each kind; later ones cover earlier ones.

    Args:
        samples: number of images N.
        size: height and width S, at least 8.
        noise: standard deviation of the grey values.
        seed: seed of everything.

    Returns:
        Images float32 (N, 1, S, S) in [0, 1]; pixel classes int64 (N, S, S); and which kinds an image shows,
        as float32 (N, 3). Sample n does not depend on how many there are.
    """
    grid = torch.arange(size, dtype=torch.float32)
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    images, masks = [], []
    for number in range(samples):
        rng = stream(seed, "shapes", number)
        there = torch.rand(3, generator=rng) < 0.5
        image = torch.full((size, size), 0.15) + 0.1 * torch.rand(1, generator=rng)
        mask = torch.zeros(size, size, dtype=torch.int64)
        for kind in torch.randperm(3, generator=rng).tolist():
            reach = size * (0.15 + 0.1 * float(torch.rand(1, generator=rng)))
            place = reach + (size - 1 - 2 * reach) * torch.rand(2, generator=rng)
            grey = 0.6 + 0.3 * torch.rand(1, generator=rng)
            down, right = (rows - place[0]).abs(), (columns - place[1]).abs()
            inside = (
                down**2 + right**2 <= reach**2,
                torch.maximum(down, right) <= 0.85 * reach,
                (torch.maximum(down, right) <= reach) & (torch.minimum(down, right) <= 0.3 * reach),
            )[kind]
            if there[kind]:
                image, mask = torch.where(inside, grey, image), torch.where(inside, kind + 1, mask)
        images.append((image + noise * torch.randn(size, size, generator=rng)).clamp(0, 1))
        masks.append(mask)
    y = torch.stack(masks)
    present = torch.stack([(y == kind + 1).flatten(1).any(1) for kind in range(3)], 1).float()
    return torch.stack(images)[:, None], y, present


def split_images(x: Tensor, y: Tensor, shares: Mapping[Split, float], seed: int) -> dict[Split, Any]:
    """Return images and labels of each split, drawn at random.

    Raises:
        ValueError: none are left for training.
    """
    sizes = {split: max(1, round(share * len(x))) for split, share in shares.items()}
    left = len(x) - sum(sizes.values())
    if left < 1:
        raise ValueError(
            f"validation, test: holding out {sum(sizes.values())} of {len(x)} images leaves none for training"
        )
    parts = torch.split(torch.randperm(len(x), generator=stream(seed, "split")), [left, *sizes.values()])
    return {split: (x[rows], y[rows]) for split, rows in zip(("train", *sizes), parts, strict=True)}
