"""Norm balls inside the valid pixel range [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..api import Batch, normal_like, uniform_like

if TYPE_CHECKING:
    from ..api import Step
    from . import BallOptions

# A projected point may leave the ball by the rounding of one float32 subtraction in [0, 1].
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

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself: the identity vicinity."""
        return batch


def _in_range(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return (flat >= 0).logical_and(flat <= 1).all(1)


class Linf(_Ball):
    """The L∞ ball of radius eps around each sample, cut to [0, 1].

    Args:
        options: `eps`, in units of the input range.
    """

    norm: float | None = math.inf

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Clamp x (N, …) to [origin - radius, origin + radius] and to [0, 1]."""
        r = per_sample(radius, x)
        return x.clamp(origin - r, origin + r).clamp_(0, 1)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether ‖x − origin‖∞ ≤ radius and x is in [0, 1]: bool (N,)."""
        distance = (x - origin).abs().flatten(1).amax(1)
        return (distance <= radius + TOLERANCE) & _in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return sign(gradient)."""
        return gradient.sign()

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the cube of the given radii, then cut to [0, 1]."""
        return self.project(origin + per_sample(radius, origin) * uniform_like(origin, rng), origin, radius)


class L2(_Ball):
    """The L2 ball of radius eps around each sample, cut to [0, 1].

    `project` scales to the ball, then clamps to the pixel range: the result is always legal; it is
    the nearest legal point when at most one of the two acts on a sample.

    Args:
        options: `eps`, Euclidean length in units of the input range.
    """

    norm: float | None = 2.0

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Scale x (N, …) back to the ball around origin and clamp it to [0, 1].

        Clamping towards a box that contains origin never lengthens the perturbation.
        """
        delta = x - origin
        scale = per_sample(radius / norms(delta).clamp_min(1e-12), x)
        # A point inside stays as it is, to the last bit.
        return torch.where(scale < 1, origin + delta * scale, x).clamp_(0, 1)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether ‖x − origin‖₂ ≤ radius and x is in [0, 1]: bool (N,)."""
        return (norms(x - origin) <= radius * (1 + 1e-5) + TOLERANCE) & _in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return gradient/‖gradient‖₂; a zero gradient stays zero."""
        return gradient / per_sample(norms(gradient).clamp_min(1e-12), gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the ball of the given radii, then cut to [0, 1]."""
        direction = self.steepest(normal_like(origin, rng))
        dimension = origin[0].numel() if len(origin) else 1
        draw = torch.rand(len(origin), generator=rng, device=origin.device) ** (1 / dimension)
        return self.project(origin + direction * per_sample(radius * draw, origin), origin, radius)
