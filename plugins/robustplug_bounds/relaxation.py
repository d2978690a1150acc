"""Linear bounds of activations and of max pooling on intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .graph import Node, activation

# An interval narrower than this counts as a point, whose secant has no slope.
_NARROW = 1e-12


@dataclass(frozen=True)
class Lines:
    """Hold a lower and an upper line of each output of an activation, (N, …) each.

    Attributes:
        low_slope, low_shift: the line that the output is never below, as slope · input + shift; None is 0.
        high_slope, high_shift: the line that it is never above.
        spread: of max pooling, moves coefficients (N, S, …) from the outputs to the chosen inputs.
    """

    low_slope: Tensor
    low_shift: Tensor | None
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


class _Secant(torch.autograd.Function):
    """Slope r = h/(h − l) and shift −r l of the line above ReLU on [l, h]; 1 and 0 if on, 0 and 0 if off.

    The gradients of the slope are (1 − r)/(h − l) of h and r/(h − l) of l, those of the shift (1 − r)² and
    −r²; all are 0 where the sign is decided.
    """

    @staticmethod
    def forward(ctx: Any, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        top, bottom = high.clamp_min(0), low.clamp_max(0)
        # Where both ends are 0, any slope will do; elsewhere the slope of a sign is exact.
        slope = top / (top - bottom).clamp_min_(torch.finfo(low.dtype).tiny)
        ctx.save_for_backward(low, high, slope)
        return slope, bottom.mul_(slope).neg_()

    @staticmethod
    def backward(ctx: Any, of_slope: Tensor, of_shift: Tensor) -> tuple[Tensor, Tensor]:
        low, high, slope = ctx.saved_tensors
        part, rest = of_slope / (high - low).clamp_min_(_NARROW), 1 - slope
        of_high = torch.addcmul(part, of_shift, rest).mul_(rest)
        of_low = torch.addcmul(part, of_shift, slope, value=-1).mul_(slope)
        # The one is 0 where it is on, the other where it is off; this kernel does the rest in one pass.
        masked = torch.ops.aten.threshold_backward
        return masked(of_low, rest, 0), masked(of_high, slope, 0)


def rectified(low: Tensor, high: Tensor, slope: float = 0.0) -> Lines:
    """Return the bounds of max(x, slope · x).

    Where the sign is undecided, the upper line goes through both ends, and the lower one has the slope of the
    larger side: the adaptive choice of CROWN, Zhang et al. 2018.
    """
    # slope · x + (1 − slope) · relu(x)
    steep, shift = _Secant.apply(low, high)
    # Not differentiable: 1 or 0.
    flat = (high.detach() + low.detach()).sign_().relu_()
    if slope:
        rest = 1 - slope
        flat, steep, shift = slope + rest * flat, slope + rest * steep, rest * shift
    return Lines(flat, None, steep, shift)


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
    with torch.no_grad():
        best, chosen = nn.functional.max_pool2d(low, size, stride, padding, dilation, return_indices=True)
        sides = (padding[1], padding[1], padding[0], padding[0])
        most = nn.functional.pad(high, sides, value=-torch.inf)
        places = torch.arange(math.prod(low.shape[2:]), device=low.device).view(1, 1, *low.shape[2:])
        places = nn.functional.pad(places, sides, value=-1)
        others = torch.full_like(best, -torch.inf)
        for at in itertools.product(*(range(each) for each in size)):
            along = zip(at, best.shape[2:], stride, dilation, strict=True)
            part: Any = (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in along))
            others = torch.maximum(others, most[part].masked_fill(places[part] == chosen, -torch.inf))
        decided = best >= others
    largest = nn.functional.max_pool2d(high, size, stride, padding, dilation).masked_fill(decided, 0.0)

    def spread(rows: Tensor) -> Tensor:
        apart = rows.shape[1]
        like, index = (
            each[:, None].expand(-1, apart, -1, -1, -1).flatten(0, 1) for each in (low.detach(), chosen)
        )
        back = torch.ops.aten.max_pool2d_with_indices_backward
        moved: Tensor = back(rows.flatten(0, 1), like, size, stride, padding, dilation, False, index)
        return moved.view(len(low), apart, *low.shape[1:])

    return Lines(torch.ones_like(best), None, decided.to(low), largest, spread)
