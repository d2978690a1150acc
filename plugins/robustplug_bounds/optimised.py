"""Linear bounds whose lower lines are optimised for each value and each margin: α-CROWN."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .ball import Ball
from .bounds import Bounds
from .graph import Graph
from .propagation import linear_bounds, lowest, margin_rows
from .relaxation import rectified

# Step size of Adam, and its factor after each step, as in the verifiers of the authors.
_RATE, _DECAY = 0.1, 0.98


class _Free(NamedTuple):
    """The lower slopes of a ReLU: where they are free, (N, …), what they are elsewhere, and the least one."""

    undecided: Tensor
    fixed: Tensor
    least: float

    def slopes(self, share: Tensor) -> Tensor:
        """Return slopes (N, S, …) between the least one, at share 0, and 1."""
        free = self.least + (1 - self.least) * share
        return torch.where(self.undecided[:, None], free, self.fixed[:, None])

    def shares(self, count: int) -> Tensor:
        """Return the shares (N, S, …) of the slopes as they are, for so many functions."""
        own = (self.fixed - self.least) / (1 - self.least)
        return own[:, None].repeat(1, count, *(1,) * (own.dim() - 1))


def free_slopes(graph: Graph, bounds: Sequence[Bounds], start: int) -> dict[int, _Free]:
    """Return what is free at each ReLU and leaky ReLU that a node depends on, by its position.

    Where the sign of the input is undecided, every slope from that below 0 to that above it is a line below.
    """
    found, behind = {}, {start}
    for at in range(start, -1, -1):
        if at not in behind:
            continue
        node = graph.nodes[at]
        behind.update(node.inputs)
        if node.kind == "activation" and node.function in ("relu", "leaky") and node.slope < 1:
            low, high = bounds[node.inputs[0]]
            found[at] = _Free((low < 0) & (high > 0), rectified(low, high, node.slope).low_slope, node.slope)
    return found


def optimised(
    graph: Graph,
    bounds: Sequence[Bounds],
    ball: Ball,
    start: int,
    rows: Tensor,
    exact: bool = False,
    steps: int = 20,
) -> Tensor:
    """Return lower bounds of linear functions of a node's output, (N, S), with lower lines that ascend them.

    Every choice of slopes gives a bound, so that the best step counts: it is never below that of `lowest`,
    whose slopes, those of CROWN, are the first.

    Args:
        graph, bounds, ball, start, rows, exact: as for `lowest`.
        steps: number of steps.
    """
    free = free_slopes(graph, bounds, start)
    best = lowest(graph, bounds, ball, start, rows, exact=exact)
    if not any(bool(own.undecided.any()) for own in free.values()):
        return best
    shares = {at: own.shares(rows.shape[1]).requires_grad_() for at, own in free.items()}
    held = list(shares.values())
    optimizer = torch.optim.Adam(held, lr=_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, _DECAY)
    for _ in range(steps):
        with torch.enable_grad():
            slopes = {at: own.slopes(shares[at]) for at, own in free.items()}
            found = lowest(graph, bounds, ball, start, rows, exact=exact, slopes=slopes)
            # Each function has slopes of its own, so that the sum ascends each of them.
            gradients = torch.autograd.grad(-found.sum(), held)
        best = torch.maximum(best, found.detach())
        for share, gradient in zip(held, gradients, strict=True):
            share.grad = gradient
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for share in held:
                share.clamp_(0, 1)
    slopes = {at: own.slopes(shares[at].detach()) for at, own in free.items()}
    return torch.maximum(best, lowest(graph, bounds, ball, start, rows, exact=exact, slopes=slopes))


def optimised_margins(
    graph: Graph, ball: Ball, y: Tensor, steps: int, layers: bool = True, exact: bool = False
) -> Tensor:
    """Return lower bounds of the differences between the logit of the label and each logit, (N, K).

    Xu et al. 2021 (arXiv:2011.13824). The authors optimise the slopes of all layers for the margins at once;
    here the bounds of each layer come first, and each is optimised for itself. No bound is below CROWN's.

    Args:
        graph: a classifier.
        ball: the inputs.
        y: labels, int64 (N,).
        steps: number of steps; 0 for CROWN.
        layers: whether bounds of layers are optimised; otherwise they are those of CROWN.
        exact: whether to leave out the rounding.
    """
    with torch.no_grad():
        rows, last = margin_rows(graph, ball, y), len(graph.nodes) - 1
        plain = linear_bounds(graph, ball, exact)
        best = optimised(graph, plain, ball, last, rows, exact, steps)
        if layers and steps:
            tighter = linear_bounds(graph, ball, exact, partial(optimised, steps=steps))
            # Tighter bounds of layers have other slopes to start from, which may be worse.
            best = torch.maximum(best, optimised(graph, tighter, ball, last, rows, exact, steps))
        return best
