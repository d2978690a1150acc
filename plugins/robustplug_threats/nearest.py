"""Shared by the threat models: the valid range of inputs, and the nearest points of balls in boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustplug.api import Batch, Step, TaskInfo

# Rounding error of one float32 subtraction in [0, 1].
TOLERANCE = 1e-6
_HALVINGS = 40


def rounding(dtype: torch.dtype) -> float:
    """Return the rounding error of one subtraction in [0, 1]."""
    return max(TOLERANCE, torch.finfo(dtype).eps)


def at_least_single(x: Tensor) -> Tensor:
    """Return numbers of half precision as float32, and others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def column(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, …) so that it broadcasts over the rows of x."""
    return values.view(-1, *(1,) * (x.dim() - 1))


def nearest(size: Tensor, room: Tensor, radius: Tensor, order: float) -> Tensor:
    """Return the nearest p to `size` with 0 ≤ p ≤ room and norm at most `radius`, (N, D).

    L1: min(room, max(size − λ, 0)); L2: min(room, size / (1 + λ)), with the smallest λ ≥ 0 that is enough.

    Args:
        size, room: values of at least 0, (N, D).
        radius: (N,).
        order: 1, 2 or infinity.
    """
    if order == torch.inf:
        return size.minimum(room).minimum(radius[:, None])

    def at(share: Tensor) -> Tensor:
        # λ = share · largest for L1, and 1 + λ = 1 / (1 − share) for L2: both go from nothing to everything.
        if order == 1:
            return (size - share[:, None] * size.amax(1, keepdim=True)).clamp_min(0).minimum(room)
        return (size * (1 - share[:, None])).minimum(room)

    def fits(p: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(p, ord=order, dim=1)
        return length <= radius

    low, high = torch.zeros_like(radius), torch.ones_like(radius)
    enough = fits(at(low))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = fits(at(middle))
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    return torch.where(enough[:, None], at(torch.zeros_like(high)), at(high))


def widths(x: Tensor, info: TaskInfo) -> Tensor:
    """Return the width of the range of each value, in the shape of inputs (N, C, …)."""
    low, high = (torch.as_tensor(side, dtype=x.dtype) for side in info.bounds)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return (high - low).view(shape if low.dim() or high.dim() else (1,) * x.dim()).expand_as(x)


class Ranged:
    """A threat model within the valid range of the inputs, which draws no samples.

    Args:
        eps: radius.
    """

    norm: float | None = None

    def __init__(self, eps: float) -> None:
        self.eps = float(eps)
        self.low, self.high = torch.zeros(()), torch.ones(())
        self.reach = 1.0

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high] instead of [0, 1]; numbers, or one for each channel or feature."""
        self.low, self.high = (torch.as_tensor(side, dtype=torch.float32) for side in (low, high))
        self.reach = max(float(side.abs().max()) for side in (self.low, self.high, self.high - self.low))

    def sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both bounds in a shape that broadcasts over inputs (N, C, …)."""
        if self.low.device != x.device:
            self.low, self.high = self.low.to(x.device), self.high.to(x.device)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        low, high = (side.to(x.dtype) for side in (self.low, self.high))
        return (low.view(shape), high.view(shape)) if low.dim() else (low, high)

    def clipped(self, x: Tensor) -> Tensor:
        """Clamp inputs to the valid range."""
        low, high = self.sides(x)
        return x.clamp(low, high)

    def in_range(self, x: Tensor) -> Tensor:
        """Return for each sample whether it is in the valid range; NaN is not: bool (N,)."""
        low, high = self.sides(x)
        return ((x >= low) & (x <= high)).flatten(1).all(1)

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch
