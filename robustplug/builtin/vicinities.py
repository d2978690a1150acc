"""Norm balls inside the valid range of the inputs, which is [0, 1] unless the task states another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..api import Batch, normal_like, uniform_like

if TYPE_CHECKING:
    from ..api import Step
    from . import BallOptions

# A projected point may exceed the ball by the rounding error of one float32 subtraction: in [0, 1] this, in
# other ranges in proportion to the largest value.
TOLERANCE = 1e-6


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, …) so that it broadcasts over the rows of x."""
    return values.view(-1, *(1,) * (x.dim() - 1))


def norms(x: Tensor) -> Tensor:
    """Return the L2 norm of each row of x, (N,)."""
    result: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return result


class _Ball:
    def __init__(self, options: BallOptions) -> None:
        self.eps = options.eps
        self.low: float | Tensor = 0.0
        self.high: float | Tensor = 1.0
        self.tolerance = TOLERANCE

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high] instead of [0, 1]; numbers, or one for each channel or feature."""
        sides = [torch.as_tensor(side, dtype=torch.float32) for side in (low, high)]
        self.low, self.high = (side if side.dim() else float(side) for side in sides)
        reach = max(float(side.abs().max()) for side in (*sides, sides[1] - sides[0]))
        self.tolerance = TOLERANCE * reach

    def _sides(self, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Return both bounds in a shape that broadcasts over inputs (N, C, …)."""
        if isinstance(self.low, float) or isinstance(self.high, float):
            return self.low, self.high
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return self.low.to(x.device).view(shape), self.high.to(x.device).view(shape)

    def _clip(self, x: Tensor) -> Tensor:
        """Clamp a tensor in place to the valid range."""
        low, high = self._sides(x)
        return x.clamp_(low, high)  # type: ignore[arg-type]  # both are numbers, or both are tensors

    def _in_range(self, x: Tensor) -> Tensor:
        low, high = self._sides(x)
        return (x >= low).logical_and(x <= high).flatten(1).all(1)

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself: the identity vicinity."""
        return batch


class Linf(_Ball):
    """The L∞ ball of radius eps around each sample, intersected with the valid range of the inputs.

    Args:
        options: the radius `eps`, in units of the input range.
    """

    norm: float | None = math.inf

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Clamp x (N, …) to [origin - radius, origin + radius] and to the valid range."""
        r = per_sample(radius, x)
        return self._clip(x.clamp(origin - r, origin + r))

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether ‖x − origin‖∞ ≤ radius and x is in the valid range: bool (N,)."""
        distance = (x - origin).abs().flatten(1).amax(1)
        return (distance <= radius + self.tolerance) & self._in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return sign(gradient)."""
        return gradient.sign()

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the cube of the given radii, then clamp to the valid range."""
        return self.project(origin + per_sample(radius, origin) * uniform_like(origin, rng), origin, radius)


class L2(_Ball):
    """The L2 ball of radius eps around each sample, intersected with the valid range of the inputs.

    `project` scales a point to the ball, then clamps it to the pixel range. The result is always legal.
    It is the nearest legal point if at most one of the two operations changes the sample.

    Args:
        options: the radius `eps`, a Euclidean length in units of the input range.
    """

    norm: float | None = 2.0

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Scale x (N, …) back to the ball around origin and clamp it to the valid range.

        Clamping to a box that contains origin never lengthens the perturbation.
        """
        delta = x - origin
        scale = per_sample(radius / norms(delta).clamp_min(1e-12), x)
        # A point inside the ball stays bit-identical.
        return self._clip(torch.where(scale < 1, origin + delta * scale, x))

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether ‖x − origin‖₂ ≤ radius and x is in the valid range: bool (N,)."""
        return (norms(x - origin) <= radius * (1 + 1e-5) + self.tolerance) & self._in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return gradient/‖gradient‖₂; a zero gradient stays zero."""
        return gradient / per_sample(norms(gradient).clamp_min(1e-12), gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the ball of the given radii, then clamp to the valid range."""
        direction = self.steepest(normal_like(origin, rng))
        dimension = origin[0].numel() if len(origin) else 1
        draw = torch.rand(len(origin), generator=rng, device=origin.device) ** (1 / dimension)
        return self.project(origin + direction * per_sample(radius * draw, origin), origin, radius)
