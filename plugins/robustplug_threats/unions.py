"""Unions of vicinities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Batch, BoundedVicinity, ProportionalVicinity, Step, TaskInfo, Vicinity

from .nearest import column

if TYPE_CHECKING:
    from . import PartsOptions


class Union:
    """What is legal in at least one of several vicinities.

    The radius is that of the first; the others keep their ratio to it.

    Args:
        options: see PartsOptions.
        parts: the vicinities.
    """

    norm: float | None = None

    def __init__(self, options: PartsOptions, *, parts: Sequence[Vicinity]) -> None:
        if not parts[0].eps > 0:
            raise ValueError("parts: the radius of the first is the unit of the others, and must be above 0")
        self.parts, self.eps = parts, float(parts[0].eps)
        self.ratios = [float(part.eps) / self.eps for part in parts]

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high]; see the parts.

        Raises:
            ValueError: a part supports only [0, 1].
        """
        for part in self.parts:
            if not isinstance(part, BoundedVicinity):
                raise ValueError(f"{type(part).__name__} supports only inputs in [0, 1]")
            part.within(low, high)

    def inform(self, info: TaskInfo) -> None:
        """Tell the parts what they must know of the task."""
        for part in self.parts:
            tell = getattr(part, "inform", None)
            if tell is not None:
                tell(info)

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def _each(self, radius: Tensor) -> list[tuple[Vicinity, Tensor]]:
        """Return each part with its radii."""
        return [(part, ratio * radius) for part, ratio in zip(self.parts, self.ratios, strict=True)]

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest of the points that the parts project to; legal points stay."""
        found = [part.project(x, origin, size) for part, size in self._each(radius)]
        away = torch.stack([(each - x).flatten(1).square().sum(1) for each in found])
        nearest = away.argmin(0)
        result = found[0]
        for number, each in enumerate(found[1:], 1):
            result = torch.where(column(nearest == number, x), each, result)
        return result

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether a part contains it: bool (N,)."""
        return torch.stack([part.contains(x, origin, size) for part, size in self._each(radius)]).any(0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the part's direction that ascends the fastest, for a radius of 1 of the first."""
        return self._fastest(gradient, [part.steepest for part in self.parts])

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the direction of several steps in the part whose steepest one ascends the fastest."""
        ahead = [
            part.proportional if isinstance(part, ProportionalVicinity) else part.steepest
            for part in self.parts
        ]
        return self._fastest(gradient, ahead)

    def _fastest(self, gradient: Tensor, ahead: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """Return what `ahead` gives for the part whose steepest direction ascends the fastest."""
        found, most = torch.zeros_like(gradient), torch.zeros(len(gradient), device=gradient.device)
        for part, ratio, direction in zip(self.parts, self.ratios, ahead, strict=True):
            step = ratio * part.steepest(gradient)
            rise = (gradient.nan_to_num(0.0, 0.0, 0.0) * step).flatten(1).sum(1)
            found = torch.where(column(rise > most, gradient), ratio * direction(gradient), found)
            most = most.maximum(rise)
        return found

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a part for each sample, and a point of it."""
        chosen = torch.randint(len(self.parts), (len(origin),), generator=rng, device=origin.device)
        result = origin
        for number, (part, size) in enumerate(self._each(radius)):
            drawn = part.random_point(origin, size, rng)
            result = torch.where(column(chosen == number, origin), drawn, result)
        return result
