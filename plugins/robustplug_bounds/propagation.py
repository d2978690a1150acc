"""Bounds on every value of a network: intervals forward, and linear functions backward.

The bounds hold for the values that a machine computes in float32, too: of an affine map that sums n
products of at most M in all, they are widened by γ_n M, γ_n = n u/(1 − n u), u = 2⁻²⁴, which bounds the
rounding in any order of summation (Higham 2002, Accuracy and Stability of Numerical Algorithms). They are
computed in float64, whose own rounding is smaller by nine digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .ball import Ball
from .bounds import Bounds
from .graph import Graph, Node, constant
from .relaxation import Lines, relaxed

_UNIT = 2.0**-24
# Error of a float32 tanh or sigmoid, which are at most 1.
_ACTIVATION = 1e-6
# Values of one backward pass.
_VALUES = 2**24


# As `lowest`, from the network, bounds, the inputs, the position of a node, and coefficients of its output.
Lowest = Callable[..., Tensor]


def rounding(node: Node, inputs: Sequence[Bounds], exact: bool) -> Tensor | float:
    """Return by how much the float32 outputs of an affine map may be off, (N, …); 0 if `exact`."""
    if exact or node.terms == 0:
        return 0.0
    assert node.magnitude is not None
    most = [torch.maximum(each.low.abs(), each.high.abs()) for each in inputs]
    own = node.size
    if own is None:
        shift = constant(node, [tuple(each.shape[1:]) for each in most], most[0])
        total = node.magnitude(*most)
        total = total if shift is None else total + shift.abs()
    else:
        total = own(*most)
    share = node.terms * _UNIT
    return share / (1 - share) * total


def interval(node: Node, inputs: Sequence[Bounds], exact: bool = False) -> Bounds:
    """Return the interval of a node's output from those of its inputs: interval bound propagation.

    An affine map takes centre and radius: c' = L c + b, r' = |L| r; Gowal et al. 2018. Monotone functions
    take both ends.
    """
    assert node.apply is not None
    if node.kind == "affine":
        assert node.magnitude is not None
        centre = node.apply(*(each.middle[0] for each in inputs))
        radius = node.magnitude(*(each.middle[1] for each in inputs))
        off = rounding(node, inputs, exact)
        middle = centre, radius + off if isinstance(off, Tensor) else radius
        # What sums nothing, such as flatten, hands on ends, as it was given them.
        return Bounds(middle=middle) if node.terms else Bounds(*Bounds(middle=middle).ends)
    low, high = (node.apply(side) for side in inputs[0])
    if exact or node.function not in ("tanh", "sigmoid"):
        return Bounds(low, high)
    return Bounds(low - _ACTIVATION, high + _ACTIVATION)


def intervals(graph: Graph, ball: Ball, exact: bool = False) -> list[Bounds]:
    """Return interval bounds of every node.

    Args:
        graph: the network.
        ball: the inputs.
        exact: whether to leave out the rounding, as in training.
    """
    found = [Bounds(ball.low, ball.high)]
    for node in graph.nodes[1:]:
        found.append(interval(node, [found[at] for at in node.inputs], exact))
    return found


def lowest(
    graph: Graph,
    bounds: Sequence[Bounds],
    ball: Ball,
    start: int,
    rows: Tensor,
    through: bool = True,
    exact: bool = False,
    slopes: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Return lower bounds of linear functions of a node's output, (N, S).

    Args:
        graph: the network.
        bounds: bounds of every node before `start`.
        ball: the inputs.
        start: position of the node.
        rows: coefficients (N, S, …) of its output.
        through: whether to go on to the input, through linear bounds of the activations (CROWN); otherwise
            only through affine maps, to the intervals behind them.
        exact: as for `intervals`.
        slopes: slopes (N, S, …) of the lower lines of activations by their position, in the place of CROWN's;
            the lines go through 0.
    """
    held: dict[int, Tensor] = {start: rows}
    total = rows.new_zeros(rows.shape[:2])
    for at in range(start, -1, -1):
        own = held.pop(at, None)
        if own is None:
            continue
        node, dims = graph.nodes[at], tuple(range(2, own.dim()))
        if node.kind == "input":
            total = total + ball.lowest(own)
            continue
        if node.kind != "affine" and not through:
            low, high = bounds[at]
            total = total + (own.clamp_min(0) * low[:, None] + own.clamp_max(0) * high[:, None]).sum(dims)
            continue
        inputs = [bounds[before] for before in node.inputs]
        if node.kind == "affine":
            shapes = [graph.nodes[before].shape for before in node.inputs]
            off = rounding(node, inputs, exact)
            if isinstance(off, Tensor):
                total = total - (own.abs() * off[:, None]).sum(dims)
            shift = constant(node, shapes, own)
            if shift is not None:
                # Summed over what shares a value of the constant first.
                size = (*own.shape[:2], *(1,) * (len(dims) - shift.dim()), *shift.shape)
                total = total + (own.sum_to_size(size) * shift).sum(dims)
            moved = transposed(node, own, shapes)
        else:
            lines = relaxed(node, inputs[0].low, inputs[0].high, 0.0 if exact else _ACTIVATION)
            step, more = backward(lines, own, None if slopes is None else slopes.get(at))
            moved, total = [step], total + more
        for before, part in zip(node.inputs, moved, strict=True):
            held[before] = held[before] + part if before in held else part
    return total


def transposed(node: Node, rows: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Return the coefficients of an affine map's inputs from those of its output: rows · L, for each input.

    Args:
        node: the map.
        rows: coefficients (N, S, …) of its output.
        shapes: shape of each input, for one sample.
    """
    assert node.apply is not None
    (count, apart), graph = rows.shape[:2], torch.is_grad_enabled()
    if node.back is not None:
        moved = node.back(rows.flatten(0, 1), shapes[0])
        return [moved.view(count, apart, *shapes[0])]
    with torch.enable_grad():
        zeros = [rows.new_zeros(count * apart, *shape).requires_grad_() for shape in shapes]
        output = node.apply(*zeros)
        found = torch.autograd.grad(output, zeros, rows.flatten(0, 1), create_graph=graph)
    return [each.view(count, apart, *shape) for each, shape in zip(found, shapes, strict=True)]


def backward(lines: Lines, rows: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the coefficients of an activation's input, and what is added to the lower bound, (N, S).

    A positive coefficient takes the lower line, a negative one the upper.

    Args:
        lines: bounds of the activation.
        rows: coefficients (N, S, …) of its output.
        slopes: other slopes of the lower lines, (N, S, …).
    """
    below = lines.low_slope[:, None] if slopes is None else slopes
    # relu has a cheaper gradient than clamp.
    up = rows.relu()
    down, dims = rows - up, tuple(range(2, rows.dim()))
    more = (down * lines.high_shift[:, None]).sum(dims)
    if lines.low_shift is not None:
        more = more + (up * lines.low_shift[:, None]).sum(dims)
    moved = up * below + down * lines.high_slope[:, None]
    return (moved if lines.spread is None else lines.spread(moved)), more


def linear_bounds(graph: Graph, ball: Ball, exact: bool = False, least: Lowest = lowest) -> list[Bounds]:
    """Return bounds of every node, those in front of activations by linear bounds of the network so far.

    CROWN of all layers, Zhang et al. 2018; each is intersected with its interval.

    Args:
        graph: the network.
        ball: the inputs.
        exact: as for `intervals`.
        least: bounds the values; see `lowest`.
    """
    wanted = {at for node in graph.nodes for at in node.inputs if node.kind in ("activation", "max")}
    found = [Bounds(ball.low, ball.high)]
    for at, node in enumerate(graph.nodes[1:], start=1):
        own = interval(node, [found[before] for before in node.inputs], exact)
        if at in wanted and node.kind == "affine":
            low, high = _of_each_value(graph, found, ball, at, exact, least)
            own = Bounds(torch.maximum(own.low, low), torch.minimum(own.high, high))
        found.append(own)
    return found


def _of_each_value(
    graph: Graph, bounds: Sequence[Bounds], ball: Ball, at: int, exact: bool, least: Lowest
) -> tuple[Tensor, Tensor]:
    """Return lower and upper bounds of each value of a node, (N, …)."""
    shape, count = graph.nodes[at].shape, len(ball.x)
    size, widest = math.prod(shape), max(math.prod(node.shape) for node in graph.nodes[: at + 1])
    apart = max(1, _VALUES // (count * widest))
    parts: list[list[Tensor]] = [[], []]
    for first in range(0, size, apart):
        some = torch.arange(first, min(first + apart, size), device=ball.x.device)
        rows = torch.nn.functional.one_hot(some, size).to(ball.x).view(1, len(some), *shape)
        rows = rows.expand(count, *rows.shape[1:])
        for held, sign in zip(parts, (1, -1), strict=True):
            held.append(sign * least(graph, bounds, ball, at, sign * rows, exact=exact))
    low, high = (torch.cat(held, 1).view(count, *shape) for held in parts)
    return low, high


def margins(graph: Graph, ball: Ball, y: Tensor, mode: str, exact: bool = False) -> Tensor:
    """Return lower bounds of the differences between the logit of the label and each logit, (N, K).

    Args:
        graph: a classifier.
        ball: the inputs.
        y: labels, int64 (N,).
        mode: "ibp", intervals up to the last affine maps; "crown-ibp", linear bounds of the network over the
            intervals of its layers; "crown", over linear bounds of all layers.
        exact: as for `intervals`.

    Returns:
        The bounds; 0 for the label itself.
    """
    bounds = linear_bounds(graph, ball, exact) if mode == "crown" else intervals(graph, ball, exact)
    return margins_within(graph, bounds, ball, y, mode != "ibp", exact)


def margins_within(
    graph: Graph, bounds: Sequence[Bounds], ball: Ball, y: Tensor, through: bool, exact: bool = False
) -> Tensor:
    """Return what `margins` returns, from bounds of the nodes that are known already.

    Args:
        graph, ball, y: as for `margins`.
        bounds: bounds of every node.
        through, exact: as for `lowest`.
    """
    rows = margin_rows(graph, ball, y)
    return lowest(graph, bounds, ball, len(graph.nodes) - 1, rows, through, exact)


def margin_rows(graph: Graph, ball: Ball, y: Tensor) -> Tensor:
    """Return the coefficients of the logits in the logit of the label less each logit, (N, K, K)."""
    unit = torch.eye(graph.nodes[-1].shape[-1], dtype=ball.x.dtype, device=ball.x.device)
    return unit[y][:, None] - unit[None]
