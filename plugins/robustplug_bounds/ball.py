"""The inputs that a certificate is about: a ball in the valid range, and a little more for rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# What `Vicinity.contains` grants to the rounding of an attack, relative to the radius and to the range.
RELATIVE, ABSOLUTE = 1.01e-5, 1.01e-6


@dataclass(frozen=True)
class Ball:
    """Hold the inputs within a radius of each sample and within bounds.

    Attributes:
        x: centres (N, …).
        radius: radius of each, (N,).
        norm: "linf" or "l2".
        low, high: smallest box around the ball, (N, …).
    """

    x: Tensor
    radius: Tensor
    norm: str
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, x: Tensor, radius: Tensor, norm: str, bounds: Any, slack: bool = True) -> Ball:
        """Return the ball around samples.

        Args:
            x: samples (N, …).
            radius: radius of each, (N,).
            norm: "linf" or "l2".
            bounds: lowest and highest value of an input; numbers, or one for each channel or feature.
            slack: whether to add what float rounding may add to a perturbation.
        """
        low, high = (torch.as_tensor(side, dtype=x.dtype, device=x.device) for side in bounds)
        reach = max(float(low.abs().max()), float(high.abs().max()), float((high - low).max()))
        radius = radius.to(x)
        if slack:
            radius = radius * (1 + RELATIVE) + ABSOLUTE * reach
        wide = radius.view(-1, *(1,) * (x.dim() - 1))
        sides = [side.view(1, -1, *(1,) * (x.dim() - 2)) if side.dim() else side for side in (low, high)]
        # A sample outside the bounds stays within its own box.
        below = torch.minimum(torch.maximum(x - wide, sides[0]), x)
        above = torch.maximum(torch.minimum(x + wide, sides[1]), x)
        return cls(x, radius, norm, below, above)

    def lowest(self, rows: Tensor) -> Tensor:
        """Return the minimum of linear functions over the ball, (N, S); for L2 a lower bound.

        Args:
            rows: coefficients (N, S, …).
        """
        dims = tuple(range(2, rows.dim()))
        box = (rows.clamp_min(0) * self.low[:, None] + rows.clamp_max(0) * self.high[:, None]).sum(dims)
        if self.norm == "linf":
            return box
        size = rows.flatten(2).norm(dim=2)
        return torch.maximum((rows * self.x[:, None]).sum(dims) - self.radius[:, None] * size, box)
