"""Certified radii by bounds, as measurements of an evaluation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustplug.api import CERTIFIED_RADIUS, Refused, View

from . import AlphaCrownOptions, BoundOptions
from .ball import Ball
from .graph import Graph
from .optimised import optimised_margins
from .propagation import intervals, margins
from .reading import read_graph

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity

# How far the graph in float64 and the model in float32 may be apart, relative to the largest output, besides
# what the bounds know of rounding.
_AGREES = 1e-5


class _Bounds:
    """Certify the radii at which the bound of every margin is above 0.

    The bounds hold for all inputs of the ball in the valid range, for the model as it is computed in float32,
    and for perturbations that rounding makes a little larger; see `propagation` and `ball`.

    Args:
        options: norm and radii.
    """

    mode = "ibp"
    confidence, about = 1.0, ""
    # Linear bounds take seconds for a sample: the progress is recorded after each few.
    portion = 16

    def __init__(self, options: BoundOptions) -> None:
        self.options = options
        self.norm = {"linf": math.inf, "l2": 2.0}[options.norm]
        self.radii: Sequence[float] = options.radii

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return the certified radii, and the bound of the smallest margin at the threat model's radius.

        Raises:
            Refused: the model is in training mode or random, or a layer of it is not supported.
        """
        classes, x = step.task.info.classes, view.x
        if classes is None or not isinstance(x, Tensor) or not x.is_floating_point():
            raise Refused("it certifies classifiers of inputs that are numbers, such as images")
        with torch.no_grad():
            graph = checked_graph(step.model, x, step.forward(x))
            right = step.score(view, step.forward(x))
            labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
            exact, bounds = x.double(), step.task.info.bounds

            def margin(radius: Tensor) -> Tensor:
                ball = Ball.around(exact, radius, self.options.norm, bounds)
                found = self.bound(graph, ball, labels)
                return found.scatter(1, labels[:, None], torch.inf).amin(1)

            eps = step.radii(view, vicinity).double()
            at_eps = margin(eps)
            radius = self._largest(lambda r: margin(r) > 0, eps, at_eps > 0)
        return {CERTIFIED_RADIUS: torch.where(right, radius, -1.0), "margin bound": at_eps}

    def bound(self, graph: Graph, ball: Ball, y: Tensor) -> Tensor:
        """Return lower bounds of the margins, (N, K); see `margins`."""
        return margins(graph, ball, y, self.mode)

    def _largest(self, holds: Callable[[Tensor], Tensor], eps: Tensor, at_eps: Tensor) -> Tensor:
        """Return the largest radius that was found to hold, (N,); -1 if not even 0 does."""
        found = torch.where(holds(torch.zeros_like(eps)), 0.0, -1.0).to(eps)
        found = torch.where(at_eps, eps.maximum(found), found)
        for each in self.options.radii:
            radius = torch.full_like(eps, each)
            found = torch.where(holds(radius), radius.maximum(found), found)
        low, high = found.clamp_min(0), torch.maximum(found, self.options.reach * eps)
        for _ in range(self.options.search):
            middle = (low + high) / 2
            fits = holds(middle)
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return torch.where((found >= 0) | (low > 0), low, -1.0)


def checked_graph(model: nn.Module, x: Tensor, outputs: Tensor) -> Graph:
    """Return a model as a graph in float64, which agrees with it on some inputs.

    Args:
        model: the model, in eval mode.
        x: inputs (N, …).
        outputs: what the model makes of them.

    Raises:
        Refused: the model is in training mode, is random, or cannot be read as a graph.
    """
    if model.training:
        raise Refused("the model is in training mode, so that its outputs depend on the batch: call eval()")
    # Two samples at least, so that an operation over the batch shows in the shapes.
    some = x if len(x) > 1 else torch.cat([x, x])
    graph = read_graph(copy.deepcopy(model).double(), some.double())
    found = graph(x.double())
    if found.shape != outputs.shape or found.dim() != 2:
        raise Refused(f"its outputs have shape {tuple(outputs.shape)}: bounds need logits (N, K)")
    # What rounding may do to outputs that are the small difference of large values is no disagreement.
    point = x.double()
    low, high = intervals(graph, Ball(point, point.new_zeros(len(x)), "linf", point, point))[-1]
    apart = (found - outputs).abs() - (high - low)
    if bool((apart > _AGREES * outputs.abs().amax(1, keepdim=True)).any()):
        raise Refused(
            "its graph does not agree with it: the model answers at random, or its forward depends on the "
            "values of the inputs, and bounds are about one fixed function"
        )
    return graph


class Ibp(_Bounds):
    """Certify by interval bounds, with the last affine maps and the margins as one: Gowal et al. 2018."""

    mode = "ibp"


class CrownIbp(_Bounds):
    """Certify by one backward pass of linear bounds over interval bounds: Zhang et al. 2020."""

    mode = "crown-ibp"


class Crown(_Bounds):
    """Certify by linear bounds of every layer, at a cost for each value of it: Zhang et al. 2018."""

    mode = "crown"


class AlphaCrown(_Bounds):
    """Certify as `Crown`, with the lower lines of ReLUs optimised for each value: Xu et al. 2021.

    Args:
        options: norm, radii, and what is optimised in how many steps.
    """

    def __init__(self, options: AlphaCrownOptions) -> None:
        super().__init__(options)
        self.steps, self.layers = options.steps, options.layers

    def bound(self, graph: Graph, ball: Ball, y: Tensor) -> Tensor:
        """Return lower bounds of the margins, (N, K)."""
        return optimised_margins(graph, ball, y, self.steps, self.layers)
