"""Linear bounds of activations and of max pooling on intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .graph import Node, activation

# An interval narrower than this counts as a point, whose secant has no slope.
_NARROW = 1e-12


@dataclass(frozen=True)
class Lines:
    """Hold a lower and an upper line of each output of an activation, (N, …) each.

    Attributes:
        low_slope, low_shift: the line that the output is never below, as slope · input + shift.
        high_slope, high_shift: the line that it is never above.
        spread: of max pooling, moves coefficients (N, S, …) from the outputs to the chosen inputs.
    """

    low_slope: Tensor
    low_shift: Tensor
    high_slope: Tensor
    high_shift: Tensor
    spread: Callable[[Tensor], Tensor] | None = None


def relaxed(node: Node, low: Tensor, high: Tensor, off: float) -> Lines:
    """Return linear bounds of a node on intervals of its input.

    Args:
        node: an activation, or max pooling.
        low, high: ends of the intervals, (N, …).
        off: error of a computed tanh or sigmoid.
    """
    if node.kind == "max":
        return pooled(node, low, high)
    if node.function in ("relu", "leaky"):
        return rectified(low, high, node.slope)
    return curved(node.function, low, high, off)


def rectified(low: Tensor, high: Tensor, slope: float = 0.0) -> Lines:
    """Return the bounds of max(x, slope · x).

    Where the sign is undecided, the upper line goes through both ends, and the lower one has the slope of the
    larger side: the adaptive choice of CROWN, Zhang et al. 2018.
    """
    on, off = low >= 0, high <= 0
    width = (high - low).clamp_min(_NARROW)
    chord = (high - slope * low) / width
    steep = torch.where(on, 1.0, torch.where(off, slope, chord))
    shift = torch.where(on | off, 0.0, (slope - chord) * low)
    flat = torch.where(on, 1.0, torch.where(off, slope, torch.where(high > -low, 1.0, slope)))
    return Lines(flat, torch.zeros_like(low), steep, shift)


def curved(function: str, low: Tensor, high: Tensor, off: float) -> Lines:
    """Return the bounds of tanh or sigmoid, which are convex below 0 and concave above.

    On one side of 0, a secant and the tangent in the middle. On an interval around 0, two lines of the
    smaller of both end slopes k through the ends: the derivative is nowhere smaller than k on the interval,
    so that σ(x) − k x rises, as in Singh et al. 2018, Fast and Effective Robustness Certification.

    Args:
        function: "tanh" or "sigmoid".
        low, high: ends of the intervals.
        off: both lines are moved outwards by so much.
    """
    of = activation(function)

    def derivative(x: Tensor) -> Tensor:
        y = of(x)
        return 1 - y * y if function == "tanh" else y * (1 - y)

    start, end, middle = of(low), of(high), (low + high) / 2
    narrow = high - low < _NARROW
    chord = torch.where(narrow, derivative(low), (end - start) / (high - low).clamp_min(_NARROW))
    tangent = derivative(middle)
    flat = torch.minimum(derivative(low), derivative(high))
    concave, convex = low >= 0, high <= 0
    low_slope = torch.where(concave, chord, torch.where(convex, tangent, flat))
    high_slope = torch.where(convex, chord, torch.where(concave, tangent, flat))
    at_middle = of(middle) - tangent * middle
    low_shift = torch.where(convex, at_middle, start - low_slope * low)
    high_shift = torch.where(concave, at_middle, end - high_slope * high)
    return Lines(low_slope, low_shift - off, high_slope, high_shift + off)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def pooled(node: Node, low: Tensor, high: Tensor) -> Lines:
    """Return the bounds of max pooling over images (N, C, H, W).

    A maximum is at least the input whose lower bound is the largest. It is that input where no other can be
    larger, and else at most the largest upper bound.
    """
    size, stride, padding, dilation = (_pair(each) for each in node.window)
    count, channels, height, width = low.shape
    sides = (padding[1], padding[1], padding[0], padding[0])

    def windows(x: Tensor, fill: float) -> Tensor:
        padded = nn.functional.pad(x, sides, value=fill)
        cut = nn.functional.unfold(padded, size, dilation, 0, stride)
        return cut.view(len(x), x.shape[1], size[0] * size[1], -1)

    places = torch.arange(height * width, device=low.device, dtype=low.dtype).view(1, 1, height, width)
    least, most = windows(low, -torch.inf), windows(high, -torch.inf)
    best, chosen = least.max(2)
    others = most.scatter(2, chosen[:, :, None], -torch.inf).amax(2)
    decided = (best >= others).to(low)
    where = windows(places, 0.0).expand(count, channels, -1, -1).gather(2, chosen[:, :, None])[:, :, 0].long()
    shape = (count, channels, *node.shape[1:])

    def spread(rows: Tensor) -> Tensor:
        apart = rows.shape[1]
        found = rows.new_zeros(count, apart, channels, height * width)
        index = where[:, None].expand(-1, apart, -1, -1)
        return found.scatter_add(3, index, rows.flatten(3)).view(count, apart, channels, height, width)

    largest = torch.where(decided.bool(), torch.zeros_like(best), most.amax(2))
    one, none = torch.ones_like(best), torch.zeros_like(best)
    low_slope, low_shift, high_slope, high_shift = (x.view(shape) for x in (one, none, decided, largest))
    return Lines(low_slope, low_shift, high_slope, high_shift, spread)
