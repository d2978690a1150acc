"""The set of my-part: which perturbations are legal."""

from __future__ import annotations

import torch
from robustplug.api import Batch, Step, uniform_like
from torch import Tensor

from . import MyPartOptions

# A projected point may leave the set by the rounding error of one float32 subtraction.
_TOLERANCE = 1e-6


def _for_each(radius: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) so that it broadcasts over the rows of x."""
    return radius.view(-1, *(1,) * (x.dim() - 1))


class MyPart:
    """The set {x' : 0 ≤ x' − x ≤ ε}, intersected with [0, 1].

    Args:
        options: see MyPartOptions.
    """

    # The order of the norm whose ball it is; it is none, so attacks only project onto it.
    norm: float | None = None

    def __init__(self, options: MyPartOptions) -> None:
        self.eps = options.eps

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself: no samples other than those of the task."""
        return batch

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point."""
        return x.clamp(origin, origin + _for_each(radius, x)).clamp(0, 1)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether x is legal, up to rounding: bool (N,)."""
        change = x - origin
        legal = (change >= -_TOLERANCE) & (change <= _for_each(radius, x) + _TOLERANCE) & (x >= 0) & (x <= 1)
        return legal.flatten(1).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of unit size that increases a linear function the fastest."""
        return (gradient > 0).to(gradient.dtype)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a legal point: a uniform change of each pixel."""
        change = _for_each(radius, origin) * (uniform_like(origin, rng) + 1) / 2
        return self.project(origin + change, origin, radius)
