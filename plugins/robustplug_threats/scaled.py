"""Norm balls with a radius for each feature, channel, pixel or value."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from robustplug.api import TaskInfo, finite, normal_like, to_unit, uniform_like

from . import ScaledOptions
from .features import inputs_of
from .nearest import Ranged, at_least_single, column, nearest, rounding, widths

ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


class Scaled(Ranged):
    """All x with ‖(x − origin) / scales‖ ≤ radius, in the valid range; what has the scale 0 stays.

    `project` returns the nearest such point, where distances are measured in the scales, too.

    Args:
        options: see ScaledOptions.
    """

    def __init__(self, options: ScaledOptions) -> None:
        super().__init__(options.eps)
        self.order, self.rule = ORDERS[options.norm], options.scales
        self.named = options.norm
        self.scales = torch.tensor(self.rule) if isinstance(self.rule, tuple) else torch.ones(())
        # What names stand for is known from the task.
        self.unknown = list(self.rule) if isinstance(self.rule, Mapping) else []

    def inform(self, info: TaskInfo) -> None:
        """Take the scales that the task states, and check their number.

        Raises:
            ValueError: the task states none, or there are neither as many as channels or features, nor as
                pixels, nor as values; or a column of that name does not exist.
        """
        if self.rule == "std":
            if not info.std:
                raise ValueError('scales = "std", and the task states no standard deviations: give numbers')
            self.scales = torch.tensor(info.std)
        elif self.rule == "range":
            low, high = (torch.as_tensor(side, dtype=torch.float32) for side in info.bounds)
            self.scales = (high - low).view(-1)
        elif isinstance(self.rule, Mapping):
            found = {name: inputs_of([name], info.places, "scales") for name in self.rule}
            self.scales = torch.zeros(sum(map(len, info.places.values())))
            for name, at in found.items():
                self.scales[at] = self.rule[name]
            self.unknown = []
        if info.shape is not None:
            self.over(torch.zeros(1, *info.shape))

    def over(self, x: Tensor) -> Tensor:
        """Return the scales in a shape that broadcasts over inputs (N, C, …).

        Raises:
            ValueError: their number does not fit.
        """
        inputs_of(self.unknown, {}, "scales")
        if self.scales.device != x.device:
            self.scales = self.scales.to(x.device)
        count, scales = self.scales.numel(), self.scales.to(x.dtype)
        if count in (1, x.shape[1]):
            return scales.view(1, -1, *(1,) * (x.dim() - 2))
        if x.dim() > 2 and count == math.prod(x.shape[2:]):
            return scales.view(1, 1, *x.shape[2:])
        if count == math.prod(x.shape[1:]):
            return scales.view(1, *x.shape[1:])
        raise ValueError(f"scales: {count} numbers do not fit inputs of shape {tuple(x.shape[1:])}")

    def measured(self, delta: Tensor) -> Tensor:
        """Return changes in multiples of the scales, (N, D); infinite where a change is not allowed."""
        scales = self.over(delta).expand_as(delta)
        still = torch.where(delta == 0, 0.0, torch.inf)
        return torch.where(scales > 0, delta / scales.clamp_min(1e-30), still).flatten(1)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point (N, …), in origin's dtype."""
        dtype, x, origin = origin.dtype, at_least_single(x), at_least_single(origin)
        scales = self.over(origin).expand_as(origin)
        free = scales > 0
        low, high = self.sides(origin)
        moved = torch.where(free, x - origin, 0.0)
        room = torch.where(moved < 0, origin - low, high - origin).clamp_min(0)
        size, bound = (
            torch.where(free, each / scales.clamp_min(1e-30), 0.0).flatten(1) for each in (moved.abs(), room)
        )
        found = nearest(size, bound, radius.to(size.dtype), self.order)
        # A change may fit by rounding where its point is beyond the range.
        inside = self.in_range(x) & (size <= bound).all(1)
        inside &= torch.linalg.vector_norm(size, ord=self.order, dim=1) <= radius
        target = self.clipped(origin + moved.sign() * found.view_as(origin) * scales)
        kept = torch.where(free, x, origin)
        return torch.where(column(inside, x), kept, torch.where(free, target, origin)).to(dtype)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether it is legal: bool (N,)."""
        blur, in_range = rounding(x.dtype), self.in_range(x)
        x, origin = at_least_single(x), at_least_single(origin)
        values = self.measured(x - origin)
        scales = self.over(x).expand_as(x).flatten(1)
        # A value has the rounding error of one subtraction, in multiples of its scale.
        low, high = (side.expand_as(x).flatten(1) for side in self.sides(x))
        reach = torch.stack([low.abs(), high.abs(), high - low]).amax(0)
        slack = torch.where(scales > 0, reach * blur / scales.clamp_min(1e-30), 0.0)
        if self.order == math.inf:
            fits = (values.abs() <= radius[:, None] * (1 + 1e-5) + slack).all(1)
        else:
            size = (values.abs() - slack).clamp_min(0)
            fits = torch.linalg.vector_norm(size, ord=self.order, dim=1) <= radius * (1 + 1e-5)
        return fits & in_range

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction with norm 1, in multiples of the scales, that ascends the fastest."""
        scales = self.over(gradient)
        slope = finite(gradient) * scales
        if self.order == math.inf:
            return slope.sign() * scales
        if self.order == 2:
            unit = to_unit(slope)
            length = torch.linalg.vector_norm(unit.flatten(1), dim=1).clamp_min(1)
            return unit / column(length, unit) * scales
        flat = slope.flatten(1)
        place = flat.abs().argmax(1, keepdim=True)
        one = torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign())
        return one.view_as(gradient) * scales

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a point, uniformly from the box of an L∞ ball, else of a uniform size, and project it."""
        scales = self.over(origin)
        if self.order == math.inf:
            return self.project(
                origin + column(radius, origin) * scales * uniform_like(origin, rng), origin, radius
            )
        drawn = normal_like(origin, rng)
        length = torch.linalg.vector_norm(drawn.flatten(1), ord=self.order, dim=1).clamp_min(1e-12)
        size = radius * torch.rand(len(origin), generator=rng, device=origin.device) / length
        return self.project(origin + column(size, origin) * drawn * scales, origin, radius)

    def span(self, info: TaskInfo) -> tuple[float, str]:
        """Return the largest distance between inputs, in multiples of the scales."""
        origin = torch.zeros(1, *(info.shape or ()))
        wide = widths(origin, info)
        far = torch.where(self.over(origin) > 0, self.measured(wide).view_as(wide), 0.0).flatten()
        most = float(torch.linalg.vector_norm(far, ord=self.order))
        return most, f"the largest distance between inputs in multiples of the scales, {most:.4g}"

    def described(self) -> str:
        """Return the largest changes of single values."""
        most = self.eps * self.scales.flatten()
        still = int((most == 0).sum())
        fixed = f", {still} of {len(most)} stay" if still else ""
        moving = most[most > 0]
        return (
            f"changes within an {self.named} ball whose radii are {float(moving.min()):.4g} to "
            f"{float(moving.max()):.4g} in units of the inputs{fixed}"
        )


class SparseScaled(Scaled):
    """The L1 ball among them, with steps along several values."""

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return a direction of unit size along a share (N,) of the values, those that ascend the fastest."""
        scales = self.over(gradient)
        return largest(finite(gradient) * scales, share) * scales

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient in the scales, its largest value of one scale."""
        scales = self.over(gradient)
        return to_unit(finite(gradient) * scales) * scales


def largest(slope: Tensor, share: Tensor) -> Tensor:
    """Return the signs of a share (N,) of the values of a slope (N, …), the largest, with L1 norm 1."""
    flat = slope.flatten(1)
    size, count = flat.abs(), flat.shape[1]
    place = ((1 - share) * count).long().clamp(0, count - 1)
    least = size.sort(1).values.gather(1, place[:, None])
    chosen = torch.where(size >= least, flat.sign(), 0.0)
    return (chosen / chosen.abs().sum(1, keepdim=True).clamp_min(1)).view_as(slope)


def build(options: ScaledOptions) -> Scaled:
    """Build the threat model."""
    return (SparseScaled if options.norm == "l1" else Scaled)(options)
