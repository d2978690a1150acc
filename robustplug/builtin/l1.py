"""The L1 ball inside the valid range of the inputs, with the exact projection onto both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..api import finite, to_unit, uniform_like
from .vicinities import Ball, at_least_single, per_sample

if TYPE_CHECKING:
    from . import L1Options

# Halvings of the interval of the threshold; float32 has 24 bits.
_HALVINGS = 32


def shrunk(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the nearest p to `size` with 0 ≤ p ≤ room and Σp ≤ radius, (N, D).

    p = min(room, max(size − λ, 0)) with the smallest λ ≥ 0 that is enough; λ by bisection, then exactly on
    its piece of the piecewise linear sum. It is the projection of Croce & Hein 2021, "Mind the box".

    Args:
        size, room: values of at least 0, (N, D).
        radius: (N,).
    """

    def at(threshold: Tensor) -> Tensor:
        return (size - threshold[:, None]).clamp_min(0).minimum(room)

    low, high = torch.zeros_like(radius), size.amax(1)
    enough = at(low).sum(1) <= radius
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = at(middle).sum(1) <= radius
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    found = at(high)
    # Values strictly between 0 and their room grow as the threshold falls.
    moving = ((found > 0) & (found < room)).sum(1).clamp_min(1)
    exact = high - ((radius - found.sum(1)) / moving).clamp_min(0).minimum(high - low)
    return torch.where(enough[:, None], at(torch.zeros_like(radius)), at(exact))


def top_share(gradient: Tensor, share: Tensor) -> Tensor:
    """Return a direction with L1 norm 1 along the largest values of a gradient (N, …); 0 for a zero gradient.

    All chosen values have the same size. Croce & Hein 2021, as in the authors' code.

    Args:
        gradient: (N, …).
        share: share of the values to choose, (N,); at least one is chosen.
    """
    flat = finite(at_least_single(gradient)).flatten(1)
    sizes, count = flat.abs(), flat.shape[1]
    place = ((1 - share) * count).long().clamp(0, count - 1)
    least = sizes.sort(1).values.gather(1, place[:, None])
    chosen = torch.where(sizes >= least, flat.sign(), 0.0)
    return (chosen / chosen.abs().sum(1, keepdim=True).clamp_min(1)).view(gradient.shape).to(gradient.dtype)


class L1(Ball):
    """The L1 ball of radius eps around each sample, intersected with the valid range of the inputs.

    Args:
        options: the radius `eps`, a sum of absolute changes in units of the input range.
    """

    norm: float | None = 1.0

    def __init__(self, options: L1Options) -> None:
        super().__init__(options.eps)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest point (N, …) of ball and valid range to x, in origin's dtype."""
        start = at_least_single(origin)
        delta = (at_least_single(x) - start).flatten(1)
        low, high = (self._clip(start + side * torch.inf).sub_(start) for side in (-1, 1))
        room = torch.where(delta < 0, -low.flatten(1), high.flatten(1)).clamp_min(0)
        found = shrunk(delta.abs(), room, radius.to(delta.dtype))
        # A change may fit by rounding where its point is beyond the range.
        inside = (delta.abs() <= room).all(1) & (delta.abs().sum(1) <= radius) & self._in_range(x)
        moved = self._clip(start + (delta.sign() * found).view(start.shape))
        # A point inside stays bit-identical.
        return torch.where(per_sample(inside, start), at_least_single(x), moved).to(origin.dtype)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether ‖x − origin‖₁ ≤ radius and x is in the valid range: bool (N,)."""
        values = x[0].numel() if len(x) else 1
        # The sum has the rounding errors of all values.
        slack = self.reach * torch.finfo(x.dtype).eps / 2 * values
        distance = (at_least_single(x) - origin).abs().flatten(1).sum(1)
        return (distance <= radius * (1 + 1e-5) + slack) & self._in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the sign of the largest value alone; 0 where it is no finite number."""
        flat = finite(gradient).flatten(1)
        place = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign()).view(gradient.shape)

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return a direction of unit size along a share (N,) of the values, the largest."""
        return top_share(gradient, share)

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient over its largest absolute value; 0 where it is no finite number."""
        return to_unit(gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw uniformly from the ball of the given radii, then project to the valid range."""
        draw = uniform_like(origin, rng)
        size = -at_least_single(draw).abs().clamp_min(1e-12).log()
        rest = torch.rand(len(origin), generator=rng, device=origin.device)
        whole = size.flatten(1).sum(1) - rest.clamp_min(1e-12).log()
        delta = draw.sign() * size * per_sample(radius / whole, size)
        return self.project(origin + delta, origin, radius)
