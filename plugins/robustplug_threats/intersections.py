"""Intersections of vicinities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Batch, BoundedVicinity, Step, TaskInfo, Vicinity, to_unit

from .masks import Mask
from .nearest import at_least_single, column
from .pixels import L0, Patch
from .scaled import Scaled
from .separable import Separable, ball, nearest_change
from .tables import Table

if TYPE_CHECKING:
    from . import PartsOptions

# How far a point is moved along a gradient, in radii, so that its projection is the highest point of the set.
_FAR = 1e6


class Intersection:
    """What is legal in each of several vicinities; a sample itself always is.

    The radius is that of the first; the others keep their ratio to it. Among norm balls, `scaled`, `mask` and
    `table` without steps, groups and sums, `project` returns the nearest legal point, in Euclidean distance.
    `l0` and `patch` then set back all but the changes that would cost the most to set back, which is legal,
    and not always the nearest.

    Args:
        options: see PartsOptions.
        parts: the vicinities.
    """

    # Rounds of the projection end when all samples are close enough.
    needs_sync = True
    norm: float | None = None

    def __init__(self, options: PartsOptions, *, parts: Sequence[Vicinity]) -> None:
        if not parts[0].eps > 0:
            raise ValueError("parts: the radius of the first is the unit of the others, and must be above 0")
        for part, use in zip(parts, options.parts, strict=True):
            if not _solvable(part):
                raise ValueError(
                    f"parts: {use.name} is none of norm balls, scaled, mask, l0, patch, intersection, and "
                    "table without steps, groups and sums; an intersection with a union is a union of them"
                )
        self.parts, self.eps = parts, float(parts[0].eps)
        self.ratios = [float(part.eps) / self.eps for part in parts]
        self.low, self.high = torch.zeros(()), torch.ones(())

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high]; see the parts.

        Raises:
            ValueError: a part supports only [0, 1].
        """
        self.low, self.high = (torch.as_tensor(side, dtype=torch.float32) for side in (low, high))
        for part in self.parts:
            if not isinstance(part, BoundedVicinity):
                raise ValueError(f"{type(part).__name__} supports only inputs in [0, 1]")
            part.within(low, high)

    def inform(self, info: TaskInfo) -> None:
        """Tell the parts what they must know of the task.

        Raises:
            ValueError: no value may change in all of the parts.
        """
        for part in self.parts:
            tell = getattr(part, "inform", None)
            if tell is not None:
                tell(info)
        if info.shape is not None:
            # Where every value is at an end of its range, it can move in one direction.
            legal = self.legal(torch.zeros(1, *info.shape), torch.full((1,), self.eps), ranged=False)
            if not bool(((legal.up > 0) | (legal.down > 0)).any()):
                raise ValueError(
                    "parts: what one of them allows to change, another does not: nothing may change"
                )

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def _each(self, radius: Tensor) -> Iterator[tuple[Vicinity, Tensor]]:
        """Yield each part with its radii."""
        for part, ratio in zip(self.parts, self.ratios, strict=True):
            yield part, ratio * radius

    def legal(self, origin: Tensor, radius: Tensor, ranged: bool = True) -> Separable:
        """Return the legal changes of (N, D) values, without those parts that count changed pixels.

        Args:
            origin: the samples.
            radius: (N,).
            ranged: whether inputs stay in their range.
        """
        flat = origin.flatten(1).double()
        found = Separable(torch.full_like(flat, torch.inf), torch.full_like(flat, torch.inf))
        for part, size in self._each(radius):
            found = found.within(_changes(part, origin, size.double()))
        if not ranged:
            return found
        low, high = (side.expand_as(origin).flatten(1) for side in _sides(self.low, self.high, origin))
        return found.within(Separable((flat - low).clamp_min(0), (high - flat).clamp_min(0)))

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return a legal point, in origin's dtype; legal points stay."""
        dtype, inside = origin.dtype, self.contains(x, origin, radius)
        x, origin = at_least_single(x), at_least_single(origin)
        delta = nearest_change((x - origin).flatten(1), self.legal(origin, radius)).view_as(origin)
        low, high = _sides(self.low, self.high, origin)
        found = (origin + delta.to(origin.dtype)).clamp(low, high)
        for part, size in self._each(radius):
            for counted, own in _counted(part, size):
                found = counted.project(found, origin, own)
        # Rounding of a change must not make a value of its own change.
        found = torch.where(delta == 0, origin, found)
        return torch.where(column(inside, x), x, found).to(dtype)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether all parts contain it: bool (N,)."""
        return torch.stack([part.contains(x, origin, size) for part, size in self._each(radius)]).all(0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the legal change that ascends the fastest, for a radius of 1 of the first."""
        slope = to_unit(gradient)
        one = torch.ones(len(slope), device=slope.device)
        legal = self.legal(torch.zeros_like(slope), one, ranged=False)
        found = nearest_change(_FAR * slope.flatten(1), legal).view_as(slope).to(slope.dtype)
        for part, size in self._each(one):
            for counted, _ in _counted(part, size):
                # The pixels are those of the own radius; `found` need not be in the valid range.
                found = torch.where(counted.steepest(slope * found.abs()) != 0, found, 0.0)
        return found

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a part for each sample, and a point of it, and project it."""
        chosen = torch.randint(len(self.parts), (len(origin),), generator=rng, device=origin.device)
        result = origin
        for number, (part, size) in enumerate(self._each(radius)):
            drawn = part.random_point(origin, size, rng)
            result = torch.where(column(chosen == number, origin), drawn, result)
        return self.project(result, origin, radius)


class SparseIntersection(Intersection):
    """An intersection whose steepest change is that of few values, over and over the same ones."""

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient, its largest value as large as that of the steepest change."""
        largest = self.steepest(gradient).flatten(1).abs().amax(1)
        return to_unit(gradient) * column(largest, gradient)


def build(options: PartsOptions, *, parts: Sequence[Vicinity]) -> Intersection:
    """Build the threat model.

    Raises:
        ValueError: its first radius is 0, or a part cannot be intersected.
    """
    return (SparseIntersection if any(map(_sparse, parts)) else Intersection)(options, parts=parts)


def _sparse(part: Vicinity) -> bool:
    """Return whether a part bounds an L1 norm, or counts values."""
    if isinstance(part, Mask):
        return _sparse(part.inner)
    if isinstance(part, Scaled):
        return part.order == 1
    return part.norm == 1 or isinstance(part, L0 | Table | SparseIntersection)


def _solvable(part: Vicinity) -> bool:
    if isinstance(part, Mask):
        return _solvable(part.inner)
    if isinstance(part, Table):
        o = part.options
        return not (o.one_hot or o.sums or any(each.step is not None for each in o.feature))
    return part.norm is not None or isinstance(part, Scaled | L0 | Patch | Intersection)


def _counted(part: Vicinity, radius: Tensor) -> Iterator[tuple[L0 | Patch, Tensor]]:
    """Yield the parts that count changed pixels, also inside of others, with their radii."""
    if isinstance(part, L0 | Patch):
        yield part, radius
    elif isinstance(part, Mask):
        yield from _counted(part.inner, radius)
    elif isinstance(part, Intersection):
        for inside, size in part._each(radius):
            yield from _counted(inside, size)


def _changes(part: Vicinity, origin: Tensor, radius: Tensor) -> Separable:
    """Return the changes that a part allows, besides the range of the inputs and counts of pixels."""
    flat = origin.flatten(1).double()
    if isinstance(part, Mask):
        free = part.free(origin).expand_as(origin[:1]).flatten(1)
        room = torch.where(free, torch.inf, torch.zeros_like(flat))
        return Separable(room, room).within(_changes(part.inner, origin, radius))
    if isinstance(part, Intersection):
        return part.legal(origin, radius, ranged=False)
    if isinstance(part, Scaled):
        scales = part.over(origin).expand_as(origin[:1]).flatten(1).double()
        return ball(part.order, torch.where(scales > 0, 1 / scales.clamp_min(1e-300), torch.inf), radius)
    if isinstance(part, Table):
        rules = part.bounds_of_columns(flat)
        most = Separable(rules["down"].double().expand_as(flat), rules["up"].double().expand_as(flat))
        return most.within(ball(1, rules["cost"].double()[None], radius))
    order = math.inf if part.norm is None else part.norm
    if part.norm is None:
        radius = torch.full_like(radius, torch.inf)
    return ball(order, torch.ones_like(flat[:1]), radius)


def _sides(low: Tensor, high: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return both bounds in a shape that broadcasts over inputs (N, C, …)."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    pair = [side.to(x.device, x.dtype) for side in (low, high)]
    first, second = (side.view(shape) if side.dim() else side for side in pair)
    return first, second
