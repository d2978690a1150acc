"""What training for bounds consists of: schedules, losses of bounds, initialisation and regularisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from robustplug.api import Progress, View

from .ball import Ball
from .bounds import Bounds
from .graph import Graph

# Of the smoothed schedule of deepmind/interval-bound-propagation: where it becomes linear, and its power.
_MIDDLE, _POWER = 0.25, 4.0
# Of `compute_reg` of shizhouxing/Fast-Certified-Robust-Training.
_TOLERANCE, _TINY = 0.5, 1e-12


def ramp(progress: Progress, warmup: float, rampup: float, smoothed: bool = False) -> float:
    """Return how far a schedule has come: 0 in the warm-up, then rising to 1.

    As `linear_schedule` and `smooth_schedule` of deepmind/interval-bound-propagation, for their numbers of
    steps as shares of the run.

    Args:
        progress: position in the training run.
        warmup: share of the run before the ramp.
        rampup: share of the run that the ramp takes.
        smoothed: whether its first quarter rises with the fourth power, and the rest linearly; otherwise all
            of it is linear.
    """
    share = progress.moment / progress.epochs - warmup
    if rampup == 0:
        return float(share >= 0)
    at = min(1.0, max(0.0, share / rampup))
    if not smoothed:
        return at
    # Value and slope of both parts agree in the middle.
    slope = 1 / ((1 - _MIDDLE) * _POWER * _MIDDLE ** (_POWER - 1) + _MIDDLE**_POWER)
    if at < _MIDDLE:
        return float(slope * at**_POWER)
    middle = slope * _MIDDLE**_POWER
    return float(middle + (1 - middle) * (at - _MIDDLE) / (1 - _MIDDLE))


def weighed(*views: View) -> Sequence[View]:
    """Return the views with a weight, as the others would cost passes and teach nothing."""
    return [view for view in views if view.weight != 0.0]


def worst_case_loss(margin: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of the worst logits that bounds allow, (N,).

    These are −m_k for class k, and 0 for the label: log-softmax does not change if the label's logit is
    subtracted from all. They are the ẑ of Gowal et al. 2018, with the last layer and the margins as one.

    Args:
        margin: lower bounds of the logit of the label less each logit, (N, K).
        y: labels, int64 (N,).
    """
    return nn.functional.cross_entropy(-margin, y, reduction="none")


def chords(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return lines above exp(z − M) on intervals of z, for the largest end M of each row.

    exp is convex, so that it is below its secant.

    Args:
        low, high: ends of the intervals, (N, K).

    Returns:
        Slopes and shifts, (N, K), and M, (N,).
    """
    most = high.amax(1)
    start, end = (low - most[:, None]).exp(), (high - most[:, None]).exp()
    width = high - low
    slope = torch.where(width > 1e-6, (end - start) / width.clamp_min(1e-6), end)
    # Through the upper end: where an interval is a point, the line is the tangent, which is exact there.
    return slope, end - slope * high, most


def keep_widths(model: nn.Module) -> None:
    """Draw the weights of all linear maps but the last from N(0, 2π/n²), n inputs of a value, in place.

    So the mean width of an interval stays about the same in each layer with ReLU. As `ibp_init` of
    shizhouxing/Fast-Certified-Robust-Training, Shi et al. 2021, without its factor for sums.

    Args:
        model: a network; the global generator draws.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    for layer in layers[:-1]:
        nn.init.normal_(layer.weight, 0.0, math.sqrt(2 * math.pi) / layer.weight[0].numel())


def width_penalty(graph: Graph, bounds: Sequence[Bounds]) -> Tensor:
    """Return what intervals in front of ReLUs lack in tightness and balance, a number of the batch.

    As `compute_reg` of shizhouxing/Fast-Certified-Robust-Training, Shi et al. 2021, with its terms "relu" and
    "tightness" and its tolerance 0.5: the intervals of a layer should not be wider than twice those of the
    input, and the active and the inactive units of a layer should have similar means and variances.

    Args:
        graph: the network.
        bounds: bounds of every node.
    """
    width = (bounds[0].high - bounds[0].low).mean() / 2
    total, count = width.new_zeros(()), 0
    for node in graph.nodes:
        if node.kind != "activation" or node.function != "relu":
            continue
        low, high = bounds[node.inputs[0]]
        centre, count = (low + high) / 2, count + 1
        own = (high - low).mean() / 2
        total = total + relu(_TOLERANCE - width / own.clamp_min(_TINY)) / _TOLERANCE
        active, inactive = low > 0, high < 0
        apart = (centre - centre.mean()) ** 2
        means = (centre * active).mean(), -(centre * inactive).mean()
        spreads = (apart * active).sum(), (apart * inactive).sum()
        # Where a layer has no active or no inactive units, the code leaves this term out.
        if all(bool(part > 0) for part in (*means, *spreads)):
            for one, other in (means, spreads):
                ratio = one / other
                ratio = torch.minimum(ratio, 1 / ratio.clamp_min(_TINY))
                total = total + relu(_TOLERANCE - ratio) / _TOLERANCE
    return total / max(1, count)


def small_box(ball: Ball, point: Tensor, share: float) -> Ball:
    """Return the box of a share of the radius around a point, moved so that it lies in an L∞ ball.

    As in `adv_whitebox` of eth-sri/SABR, where the ball and the valid range overlap in less than the box,
    the box is as wide as they are.

    Args:
        ball: the L∞ ball.
        point: a point of it, (N, …).
        share: λ, radius of the box as a share of the ball's.
    """
    wide = (share * ball.radius).view(-1, *(1,) * (point.dim() - 1))
    wide = torch.minimum(wide, (ball.high - ball.low) / 2)
    centre = torch.minimum(torch.maximum(point, ball.low + wide), ball.high - wide)
    return Ball(centre, share * ball.radius, "linf", centre - wide, centre + wide)
