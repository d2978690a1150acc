"""Changes of few pixels, and of a square of pixels, to any value."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Refused, TaskInfo, finite, to_unit, uniform_like

from . import L0Options, PatchOptions
from .nearest import Ranged


class L0(Ranged):
    """All x in the valid range that differ from the origin in at most `radius` pixels (features of tables).

    Args:
        options: see L0Options.
    """

    def __init__(self, options: L0Options) -> None:
        super().__init__(options.eps)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point: the pixels stay changed that would cost the most to set back."""
        found = self.clipped(x.to(origin.dtype))
        gain = (x - origin).square() - (x - found).square()
        gain = torch.where(found == origin, 0.0, gain)
        gain = gain.flatten(2).sum(1) if x.dim() > 2 else gain
        rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept = rank < _whole(radius)[:, None]
        changed = (found != origin).any(1).flatten(1) if x.dim() > 2 else found != origin
        few = changed.sum(1) <= _whole(radius)
        kept = (kept | few[:, None]).view(len(x), *((1, *x.shape[2:]) if x.dim() > 2 else (-1,)))
        return torch.where(kept, found, origin)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether at most `radius` pixels differ, in the valid range: bool (N,)."""
        return (pixels(x != origin).flatten(1).sum(1) <= _whole(radius)) & self.in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the signs in the pixel with the largest sum of absolute values, times the valid range."""
        return self.sparse(gradient, torch.zeros(len(gradient), device=gradient.device))

    def sparse(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Return the signs in a share (N,) of the pixels, times the valid range, over their number."""
        slope = finite(gradient)
        size = slope.abs().flatten(2).sum(1) if slope.dim() > 2 else slope.abs()
        count = size.shape[1]
        place = ((1 - share) * count).long().clamp(0, count - 1)
        least = size.sort(1).values.gather(1, place[:, None])
        chosen = (size >= least) & (size > 0)
        low, high = self.sides(slope)
        part = chosen / chosen.sum(1, keepdim=True).clamp_min(1)
        part = part.view(len(slope), *((1, *slope.shape[2:]) if slope.dim() > 2 else (-1,)))
        return slope.sign() * part * (high - low)

    def proportional(self, gradient: Tensor) -> Tensor:
        """Return the gradient, its largest value that of the valid range."""
        low, high = self.sides(gradient)
        return to_unit(gradient) * (high - low)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw pixels, and new values for them."""
        order = uniform_like(pixels(origin).to(origin.dtype), rng).flatten(1).argsort(1).argsort(1)
        low, high = self.sides(origin)
        fresh = low + (high - low) * (uniform_like(origin, rng) + 1) / 2
        chosen = (order < _whole(radius)[:, None]).view_as(pixels(origin))
        return torch.where(chosen, fresh.to(origin.dtype), origin)

    def span(self, info: TaskInfo) -> tuple[float, str]:
        """Return the number of pixels or features."""
        shape = info.shape or (1,)
        count = math.prod(shape[1:] or shape)
        return count, f"all {count} {'pixels' if len(shape) > 1 else 'features'}"

    def described(self) -> str:
        """Return the number of pixels."""
        return f"any values of at most {int(self.eps)} pixels or features"


class Patch(Ranged):
    """All x in the valid range that differ from the origin within one square of `radius` pixels a side.

    Args:
        options: see PatchOptions.
    """

    def __init__(self, options: PatchOptions) -> None:
        super().__init__(options.eps)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest legal point: the changes in the square that would cost the most to set back.

        Raises:
            Refused: the inputs are no images.
        """
        found = self.clipped(x.to(images(origin).dtype))
        gain = torch.where(found == origin, 0.0, (x - origin).square() - (x - found).square()).sum(1)
        inside = self.contains(found, origin, radius)[:, None, None, None]
        return torch.where(inside | best_square(gain, _whole(radius))[:, None], found, origin)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether a square holds all changes, in the valid range: bool (N,)."""
        changed = (images(x) != origin).any(1)
        side = _whole(radius)
        spans = [_span(changed.any(axis)) for axis in (2, 1)]
        return (spans[0] <= side) & (spans[1] <= side) & self.in_range(x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the signs in the square of the own radius with the largest sum, times the valid range."""
        slope = images(finite(gradient))
        side = torch.full((len(slope),), int(self.eps), device=slope.device)
        low, high = self.sides(slope)
        return slope.sign() * best_square(slope.abs().sum(1), side)[:, None] * (high - low)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a place for the square, and values for it."""
        images(origin)
        low, high = self.sides(origin)
        fresh = low + (high - low) * (uniform_like(origin, rng) + 1) / 2
        _, _, height, width = origin.shape
        places = torch.rand(2, len(origin), generator=rng, device=origin.device)
        side = _whole(radius)
        inside = []
        for place, size in zip(places, (height, width), strict=True):
            first = (place * ((size - side).clamp_min(0) + 1)).floor()
            at = torch.arange(size, device=origin.device)
            inside.append((at >= first[:, None]) & (at < (first + side)[:, None]))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(square, fresh.to(origin.dtype), origin)

    def span(self, info: TaskInfo) -> tuple[float, str]:
        """Return the longer side of the images."""
        side = max((info.shape or (1,))[1:], default=1)
        return side, f"the side of the images, {side} pixels"

    def described(self) -> str:
        """Return the size of the square."""
        return f"any values within one square of {int(self.eps)} × {int(self.eps)} pixels, anywhere"


def _whole(radius: Tensor) -> Tensor:
    """Return whole numbers of pixels, int64 (N,)."""
    return (radius + 1e-4).floor().long()


def pixels(values: Tensor) -> Tensor:
    """Return one boolean for each pixel, (N, 1, H, W), or feature: whether any channel has one."""
    return values.bool().any(1, keepdim=True) if values.dim() > 2 else values.bool()


def images(x: Tensor) -> Tensor:
    """Return inputs that are images (N, C, H, W).

    Raises:
        Refused: they are not.
    """
    if x.dim() != 4:
        raise Refused(f"patch needs images (N, C, H, W), and the inputs have the shape {tuple(x.shape)}")
    return x


def _span(used: Tensor) -> Tensor:
    """Return from the first to the last True of each row (N, L) how many there are, int64 (N,)."""
    length = used.shape[1]
    at = torch.arange(length, device=used.device)
    first = torch.where(used, at, length).amin(1)
    last = torch.where(used, at, -1).amax(1)
    return (last - first + 1).clamp_min(0)


def best_square(values: Tensor, side: Tensor) -> Tensor:
    """Return the square with the largest sum of values (N, H, W) of each sample, bool (N, H, W).

    Args:
        values: at least 0.
        side: of each sample, int64 (N,); a side of 0 holds nothing.
    """
    count, height, width = values.shape
    total = F.pad(values.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    rows, columns = (torch.arange(size + 1, device=values.device) for size in (height, width))
    bottom = (rows[None] + side[:, None]).clamp_max(height)
    right = (columns[None] + side[:, None]).clamp_max(width)
    samples = torch.arange(count, device=values.device)[:, None, None]
    sums = (
        total[samples, bottom[:, :, None], right[:, None, :]]
        - total[samples, rows[None, :, None], right[:, None, :]]
        - total[samples, bottom[:, :, None], columns[None, None, :]]
        + total[samples, rows[None, :, None], columns[None, None, :]]
    )
    best = sums.flatten(1).argmax(1)
    top, left = best // (width + 1), best % (width + 1)
    inside = []
    for first, size in ((top, height), (left, width)):
        at = torch.arange(size, device=values.device)
        inside.append((at >= first[:, None]) & (at < (first + side)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]
