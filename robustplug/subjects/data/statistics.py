"""What all classification tasks share: the score, stratified splits, and statistics of the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.types import View
from .arrays import UNIT, Bounds, broadcast

# A channel or feature that is (almost) constant gets this share of its range as deviation: one 8-bit level.
STD_FLOOR = 1 / 255


def classification_score(view: View, output: Tensor) -> Tensor:
    """Return for each sample whether the largest output is at the label; one that is not finite never is.

    Args:
        view: y is int64 (N,), or (N, K) rows whose largest entry is the label.
        output: logits (N, K).

    Returns:
        bool (N,).
    """
    labels: Tensor = view.y.argmax(1) if view.y.ndim == 2 else view.y
    # NaN counts as the largest of its row.
    largest, places = output.max(1)
    return (places == labels) & largest.isfinite()


def stratified_split(labels: Tensor, held_out: Sequence[int], rng: torch.Generator) -> list[Tensor]:
    """Split samples at random into a training part and held-out parts of given sizes.

    Every part, and the beginning of every part, holds the classes in the proportions of the whole, up to
    about one sample a class: the samples of each class, in random order, are spread evenly over one long row,
    which is then cut.

    Args:
        labels: int64 (N,).
        held_out: sizes of the held-out parts.
        rng: a generator on the CPU.

    Returns:
        Sample positions, int64: the training part, then the held-out parts in the given order.

    Raises:
        ValueError: nothing would be left for training.
    """
    total, rest = len(labels), len(labels) - sum(held_out)
    if rest < 1:
        raise ValueError(f"holding out {sum(held_out)} of {total} samples leaves none for training")
    shuffled = torch.randperm(total, generator=rng)
    drawn = labels[shuffled]
    counts = torch.bincount(drawn)
    by_class = torch.argsort(drawn, stable=True)
    rank = torch.empty(total, dtype=torch.float64)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank[by_class] = (torch.arange(total) - starts).double()
    order = shuffled[torch.argsort((rank + 0.5) / counts[drawn], stable=True)]
    return list(torch.split(order, [rest, *held_out]))


def channel_statistics(x: Tensor, bounds: Bounds = UNIT) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation of each channel or feature.

    Args:
        x: images (N, C, H, W) or tables (N, F); uint8 counts as [0, 1] with the unit bounds.
        bounds: bounds of the inputs.

    Returns:
        Means and deviations, C or F each; no deviation is below 1/255 of the range.
    """
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    # In small chunks: a data set in double precision may not fit in memory, nor a large chunk in cache.
    for chunk in torch.split(x, 256):
        values = (unit_floats(chunk) if bounds == UNIT else chunk.float()).double()
        values = values.flatten(2) if x.ndim > 3 else values
        values = values if values.ndim == 3 else values[..., None]
        total += values.sum(2).sum(0)
        squares += values.square().sum(2).sum(0)
    count = x.numel() / x.shape[1]
    mean = total / count
    variance = squares / count - mean.square()
    low, high = (broadcast(side, 2).double().flatten() for side in bounds)
    std = torch.maximum(variance.clamp_min(0).sqrt(), STD_FLOOR * (high - low))
    return tuple(mean.tolist()), tuple(std.tolist())


def unit_floats(x: Tensor) -> Tensor:
    """Convert inputs to float32: uint8 is divided by 255, floats keep their values."""
    return x.float() if x.is_floating_point() else x.float() / 255
