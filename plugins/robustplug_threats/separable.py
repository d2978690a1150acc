"""Sets of changes that are bounded value by value and by weighted norms, and their exact intersection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Halvings of a multiplier; rounds over all multipliers; and the relative error of norms at which they end.
_HALVINGS, _ROUNDS, _CLOSE = 60, 200, 1e-8


@dataclass(frozen=True)
class Norm:
    """State that the L1 or L2 norm of weighted changes is bounded.

    Attributes:
        order: 1 or 2.
        weights: factor of each change, above 0, float64 (1, D).
        radius: bound of the norm, float64 (N,).
    """

    order: float
    weights: Tensor
    radius: Tensor

    def rows(self, rows: Tensor) -> Norm:
        """Return the bounds of some rows."""
        return Norm(self.order, self.weights, self.radius[rows])

    def length(self, size: Tensor) -> Tensor:
        """Return the norm of absolute changes (N, D) over its bound; no change has 0, whatever the bound."""
        found: Tensor = torch.linalg.vector_norm(size * self.weights, ord=self.order, dim=1)
        return torch.where(found > 0, found / self.radius, 0.0)


@dataclass(frozen=True)
class Separable:
    """Hold changes δ with −down ≤ δ ≤ up, and with bounded norms.

    Attributes:
        down, up: largest changes downwards and upwards of each value, (N, D), at least 0.
        norms: bounds of norms.
    """

    down: Tensor
    up: Tensor
    norms: tuple[Norm, ...] = ()

    def within(self, other: Separable) -> Separable:
        """Return what both allow."""
        down, up = self.down.minimum(other.down), self.up.minimum(other.up)
        return Separable(down, up, (*self.norms, *other.norms))


def ball(order: float, weights: Tensor, radius: Tensor) -> Separable:
    """Return the changes whose weighted norm of an order 1, 2 or infinity is at most a radius (N,).

    An infinite weight means that a value may not change.
    """
    free = torch.isfinite(weights)
    rows = radius[:, None].to(weights.dtype)
    if order == math.inf:
        room = torch.where(free, rows / weights.clamp_min(1e-300), 0.0)
        return Separable(room, room)
    room = torch.where(free, torch.inf, 0.0).expand(len(radius), -1)
    bound = Norm(order, torch.where(free, weights, 1.0), radius.to(weights.dtype))
    return Separable(room, room, (bound,))


def nearest_change(delta: Tensor, legal: Separable) -> Tensor:
    """Return the nearest legal change to changes (N, D), in float64.

    With multipliers λ_j of the L1 bounds and μ_k of the L2 bounds, the nearest change has the sizes
    min(room, max(|δ| − Σ λ_j w_j, 0) / (1 + Σ μ_k w_k²)), by the conditions of Karush, Kuhn and Tucker. Each
    multiplier in turn is set to the least that keeps its bound, by bisection, which is coordinate ascent of
    the concave dual; with one bound, one turn is exact. What rounding leaves beyond a bound is shrunk towards
    no change, which every bound allows.

    Args:
        delta: changes, (N, D).
        legal: what is legal.
    """
    delta = delta.double()
    room = torch.where(delta < 0, legal.down, legal.up).double().clamp_min(0)
    size, bounds = delta.abs(), legal.norms
    found, rows = size.minimum(room), torch.arange(len(size), device=size.device)
    taken = size.new_zeros(len(size), len(bounds))
    for _ in range(_ROUNDS):
        part = [norm.rows(rows) for norm in bounds]
        near, factors = _turn(size[rows], room[rows], part, taken[rows])
        found[rows], taken[rows] = near, factors
        kept = [_kept(norm, near, factors[:, number]) for number, norm in enumerate(part)]
        rows = rows[~torch.stack(kept).all(0)] if len(bounds) > 1 else rows[:0]
        if not len(rows):
            break
    for norm in bounds:
        found = found / norm.length(found).clamp_min(1)[:, None]
    return delta.sign() * found


def _turn(size: Tensor, room: Tensor, bounds: Sequence[Norm], taken: Tensor) -> tuple[Tensor, Tensor]:
    """Set each multiplier (N, K) in turn, and return the sizes (N, D) that follow, and the multipliers."""
    factors = list(taken.unbind(1))

    def at(multipliers: Sequence[Tensor]) -> Tensor:
        less, slower = torch.zeros_like(size), torch.ones_like(size)
        for norm, factor in zip(bounds, multipliers, strict=True):
            if norm.order == 1:
                less = less + factor[:, None] * norm.weights
            else:
                slower = slower + factor[:, None] * norm.weights.square()
        return ((size - less).clamp_min(0) / slower).minimum(room)

    for number, norm in enumerate(bounds):

        def moved(factor: Tensor, number: int = number) -> Tensor:
            return at([*factors[:number], factor, *factors[number + 1 :]])

        factors[number] = _least(moved, norm, size)
    return at(factors), torch.stack(factors, 1) if factors else taken


def _least(moved: Callable[[Tensor], Tensor], norm: Norm, size: Tensor) -> Tensor:
    """Return the least multiplier (N,) with which changes keep a bound, the other multipliers fixed."""
    ratio = size / norm.weights
    if norm.order == 1:
        high = ratio.amax(1)
    else:
        # ‖w · size / (μ w²)‖ is at most the radius from here on.
        high = torch.linalg.vector_norm(ratio, dim=1) / norm.radius.clamp_min(1e-300)
    low, none = torch.zeros_like(high), torch.zeros_like(high)
    enough = norm.length(moved(none)) <= 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = norm.length(moved(middle)) <= 1
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return torch.where(enough, none, high)


def _kept(norm: Norm, found: Tensor, factor: Tensor) -> Tensor:
    """Return for each row whether a bound is kept, and reached where its multiplier is not 0."""
    length = norm.length(found)
    return (length <= 1 + _CLOSE) & ((factor == 0) | (length >= 1 - _CLOSE) | (norm.radius == 0))
