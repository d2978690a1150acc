"""Norm balls inside the valid range of the inputs, which is [0, 1] unless the task states another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..api import Batch, finite, normal_like, to_unit, uniform_like

if TYPE_CHECKING:
    from ..api import Step
    from . import BallOptions

# A projected point may exceed the ball by the rounding error of one float32 subtraction: in [0, 1] this, in
# other ranges in proportion to the largest value.
TOLERANCE = 1e-6


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, …) so that it broadcasts over the rows of x."""
    return values.view(-1, *(1,) * (x.dim() - 1))


def is_half(x: Tensor) -> bool:
    """Return whether numbers have half precision."""
    return x.dtype in (torch.float16, torch.bfloat16)


def at_least_single(x: Tensor) -> Tensor:
    """Return numbers of half precision as float32, and others as they are."""
    return x.float() if is_half(x) else x


def norms(x: Tensor) -> Tensor:
    """Return the L2 norm of each row of x, (N,)."""
    result: Tensor = torch.linalg.vector_norm(at_least_single(x).flatten(1), dim=1)
    return result


class Ball:
    """A norm ball around each sample, within the valid range of the inputs.

    Args:
        eps: radius.
    """

    def __init__(self, eps: float) -> None:
        self.eps = eps
        self.low: float | Tensor = 0.0
        self.high: float | Tensor = 1.0
        self.reach = 1.0
        self._placed: tuple[Tensor, Tensor] | None = None

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high] instead of [0, 1]; numbers, or one for each channel or feature."""
        sides = [torch.as_tensor(side, dtype=torch.float32) for side in (low, high)]
        self.low, self.high = (side if side.dim() else float(side) for side in sides)
        self._placed = None
        self.reach = max(float(side.abs().max()) for side in (*sides, sides[1] - sides[0]))

    def _tolerance(self, x: Tensor) -> float:
        """Return the rounding error of inputs like x, which half precision rounds much more."""
        return self.reach * (torch.finfo(x.dtype).eps / 2 if is_half(x) else TOLERANCE)

    def _sides(self, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Return both bounds in a shape that broadcasts over inputs (N, C, …)."""
        if isinstance(self.low, float) or isinstance(self.high, float):
            return self.low, self.high
        if self._placed is None or self._placed[0].device != x.device:
            self._placed = self.low.to(x.device), self.high.to(x.device)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return self._placed[0].view(shape), self._placed[1].view(shape)

    def _clip(self, x: Tensor) -> Tensor:
        """Clamp a tensor in place to the valid range."""
        low, high = self._sides(x)
        return x.clamp_(low, high)  # type: ignore[arg-type]  # both are numbers, or both are tensors

    def _in_range(self, x: Tensor) -> Tensor:
        low, high = self._sides(x)
        slack = self._tolerance(x) if is_half(x) else 0.0
        x = at_least_single(x)
        return (x >= low - slack).logical_and(x <= high + slack).flatten(1).all(1)

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself: the identity vicinity."""
        return batch


class Linf(Ball):
    """The L∞ ball of radius eps around each sample, intersected with the valid range of the inputs.

    Args:
        options: the radius `eps`, in units of the input range.
    """

    norm: float | None = math.inf

    def __init__(self, options: BallOptions) -> None:
        super().__init__(options.eps)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Clamp x (N, …) to [origin - radius, origin + radius] and to the valid range, in origin's dtype."""
        r = per_sample(radius, x)
        return self._clip(x.clamp(origin - r, origin + r)).to(origin.dtype)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether ‖x − origin‖∞ ≤ radius and x is in the valid range: bool (N,)."""
        distance = (at_least_single(x) - origin).abs().flatten(1).amax(1)
        return (distance <= radius + self._tolerance(x)) & self._in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return sign(gradient); 0 where it is no finite number."""
        return finite(gradient).sign()

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the cube of the given radii, then clamp to the valid range."""
        return self.project(origin + per_sample(radius, origin) * uniform_like(origin, rng), origin, radius)


class L2(Ball):
    """The L2 ball of radius eps around each sample, intersected with the valid range of the inputs.

    `project` scales a point to the ball, then clamps it to the pixel range. The result is always legal.
    It is the nearest legal point if at most one of the two operations changes the sample.

    Args:
        options: the radius `eps`, a Euclidean length in units of the input range.
    """

    norm: float | None = 2.0

    def __init__(self, options: BallOptions) -> None:
        super().__init__(options.eps)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Scale x (N, …) back to the ball around origin and clamp it to the valid range.

        Clamping to a box that contains origin never lengthens the perturbation. The dtype is origin's.
        """
        delta = at_least_single(x) - origin
        scale = per_sample(radius / norms(delta).clamp_min(1e-12), x)
        # A point inside the ball stays bit-identical.
        return self._clip(torch.where(scale < 1, origin + delta * scale, x)).to(origin.dtype)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether ‖x − origin‖₂ ≤ radius and x is in the valid range: bool (N,)."""
        # Half precision rounds each value.
        values = x[0].numel() if is_half(x) and len(x) else 1
        allowed = radius * (1 + 1e-5) + self._tolerance(x) * math.sqrt(values)
        return (norms(at_least_single(x) - origin) <= allowed) & self._in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return gradient/‖gradient‖₂; 0 for a zero gradient, and where it is no finite number."""
        unit = to_unit(gradient)
        # A row that is not zero has a norm of at least 1 now.
        return unit / per_sample(norms(unit).clamp_min(1), unit)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the ball of the given radii, then clamp to the valid range."""
        direction = self.steepest(normal_like(origin, rng))
        dimension = origin[0].numel() if len(origin) else 1
        draw = torch.rand(len(origin), generator=rng, device=origin.device) ** (1 / dimension)
        return self.project(origin + direction * per_sample(radius * draw, origin), origin, radius)
