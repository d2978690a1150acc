"""Training for bounds: IBP, CROWN-IBP, SABR and MTL-IBP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, MethodState, ParamGroup, Refused, Step, Task, View

from . import BoundTrainingOptions, CrownIbpOptions, IbpOptions, MtlIbpOptions, SabrOptions
from .ball import Ball
from .bounds import Bounds
from .graph import Graph
from .networks import Graphs, check_network
from .propagation import intervals, lowest, margins_within
from .training import chords, keep_widths, ramp, small_box, weighed, width_penalty, worst_case_loss

Options = TypeVar("Options", bound=BoundTrainingOptions)
Mixed = TypeVar("Mixed", bound=IbpOptions)

# An interval takes its centre and its radius through the network.
PASSES = Cost(2, 2)
# Radius of the intervals that are regularised before there are any, as in the code of Shi et al. 2021.
_LEAST = 1e-6


def norm_of(vicinity: Any) -> str:
    """Return "linf" or "l2", the norm of a threat model.

    Raises:
        Refused: it is neither L∞ nor L2.
    """
    if vicinity.norm not in (math.inf, 2.0):
        raise Refused("interval bounds are for threat models of L∞ or L2, such as linf")
    return "linf" if vicinity.norm == math.inf else "l2"


def interval_margins(step: Step, graph: Graph, ball: Ball, y: Tensor) -> tuple[list[Bounds], Tensor]:
    """Return the intervals of all nodes and the bounds of the margins, (N, K), and count their passes.

    Args:
        step: the current update.
        graph: the network.
        ball: the inputs.
        y: labels, int64 (N,).
    """
    bounds = intervals(graph, ball, exact=True)
    step.meter.forwards += int(PASSES.forwards) * len(y)
    if torch.is_grad_enabled():
        step.meter.backwards += int(PASSES.backwards) * len(y)
    return bounds, margins_within(graph, bounds, ball, y, through=False, exact=True)


class ForBounds(Method[Options]):
    """Train on a view of the samples, and on one of the worst logits that bounds of radius ε allow.

    ε rises from 0 to its last value after a warm-up. The bounds are of the network in eval mode: BatchNorm
    takes its running statistics, and dropout drops nothing.
    """

    # Bounds of the inputs are read on the host.
    needs_sync = True

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Check that the network can be bounded.

        Raises:
            Refused: as for `check_network`, or the threat model is neither L∞ nor L2.
        """
        self.norm, self.classes = norm_of(self.vicinity), check_network(model, task)
        if self.options.init == "ibp":
            keep_widths(model)
        self._graphs = Graphs()
        if self.options.regularisation:
            self.whole_batch = "the regularisation of the intervals compares means over the whole batch"
        return super().setup(model, task)

    def share(self, step: Step) -> float:
        """Return how far ε has come, from 0 to 1."""
        o = self.options
        return ramp(step.progress, o.warmup, o.rampup, o.ramp == "smoothed")

    def radii(self, step: Step, point: Batch) -> Tensor:
        """Return the radius of the bounds of each sample, (N,)."""
        return self.share(step) * self.options.ratio * step.radii(View.of(point), self.vicinity)

    def bound_view(self, step: Step, start: View, weight: float, ball: Ball) -> View:
        """Return the view of the worst logits in a ball around the samples.

        Args:
            step: the current update.
            start: the samples.
            weight: weight of the loss of the bounds.
            ball: the inputs that they are about.
        """
        intensity = self.options.regularisation * (1 - self.share(step))

        def penalty(step: Step, view: View) -> Tensor:
            y = view.y if view.y.dim() == 1 else view.y.argmax(1)
            graph = self._graphs.of(step.model, ball.x)
            bounds, found = interval_margins(step, graph, ball, y)
            step.log("bound", (found.scatter(1, y[:, None], torch.inf).amin(1) > 0).float())
            losses = self.losses(step, graph, bounds, ball, y, found)
            if not intensity:
                return losses
            return weight * losses + intensity * width_penalty(graph, bounds)

        info = {**start.info, "bound": ball.radius}
        own = 1.0 if intensity else weight
        return start.replace(role="bound", weight=own, scored=False, info=info, penalty=penalty)

    def ball(self, step: Step, x: Tensor, radius: Tensor) -> Ball:
        """Return the inputs around samples that the bounds are about."""
        if self.options.regularisation and self.share(step) == 0:
            radius = radius.clamp_min(_LEAST)
        return Ball.around(x.detach().float(), radius, self.norm, step.task.info.bounds, slack=False)

    def losses(
        self, step: Step, graph: Graph, bounds: Sequence[Bounds], ball: Ball, y: Tensor, margin: Tensor
    ) -> Tensor:
        """Return the loss of the bounds, (N,).

        Args:
            step: the current update.
            graph: the network.
            bounds: intervals of all nodes.
            ball: the inputs.
            y: labels, int64 (N,).
            margin: bounds of the margins by intervals, (N, K).
        """
        return worst_case_loss(margin, y)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the radii that the bounds are about; 0 before there are any."""
        found = [view.info["bound"] for view in views if "bound" in view.info]
        return {"bound": found[0] if found else torch.zeros(len(views[0]), device=views[0].x.device)}

    def loss_cost(self) -> Cost:
        """Count the samples, and the centres and radii of their intervals."""
        return Cost(1, 1) + PASSES


class WithSamples(ForBounds[Mixed]):
    """κ · ℓ(f(x), y) + (1 − κ) · ℓ(ẑ(x, ε), y), where 1 − κ rises with ε, from 0 to its last value."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the samples with weight κ, and their bounds with weight 1 − κ; none of weight 0."""
        kappa = 1 - self.share(step) * (1 - self.options.kappa)
        clean = View.of(point)
        ball = self.ball(step, clean.x, self.radii(step, point))
        return weighed(clean.replace(weight=kappa), self.bound_view(step, clean, 1 - kappa, ball))


class Ibp(WithSamples[IbpOptions]):
    """The samples, and the worst logits of interval bounds: Gowal et al. 2018 (arXiv:1810.12715)."""


class CrownIbp(WithSamples[CrownIbpOptions]):
    """As `Ibp`, with β · linear bounds + (1 − β) · intervals: Zhang et al. 2020 (arXiv:1906.06316).

    β falls from 1 to its last value as ε rises. With `fused`, one linear function bounds the loss of a
    sample, in the place of one for each class.
    """

    def losses(
        self, step: Step, graph: Graph, bounds: Sequence[Bounds], ball: Ball, y: Tensor, margin: Tensor
    ) -> Tensor:
        """Return the loss of the mixed bounds, (N,); without linear bounds once β is 0."""
        beta = 1 - self.share(step) * (1 - self.options.beta)
        if beta < 1e-5:
            return worst_case_loss(margin, y)
        rows = self.classes if not self.options.fused else 1
        step.meter.forwards += rows * len(y)
        if torch.is_grad_enabled():
            step.meter.backwards += rows * len(y)
        if not self.options.fused:
            linear = margins_within(graph, bounds, ball, y, through=True, exact=True)
            return worst_case_loss(beta * linear + (1 - beta) * margin, y)
        own = beta * self._fused(graph, bounds, ball, y, margin)
        return own if beta == 1 else own + (1 - beta) * worst_case_loss(margin, y)

    def _fused(self, graph: Graph, bounds: Sequence[Bounds], ball: Ball, y: Tensor, margin: Tensor) -> Tensor:
        """Return a linear bound of log Σ_k exp(z_k − z_y), through lines above exp, (N,)."""
        unit = torch.eye(self.classes, dtype=ball.x.dtype, device=ball.x.device)
        apart = unit[None] - unit[y][:, None]
        last = len(graph.nodes) - 1
        low = lowest(graph, bounds, ball, last, apart, through=False, exact=True)
        slope, shift, most = chords(low, torch.maximum(-margin, low))
        rows = (slope[:, :, None] * apart).sum(1, keepdim=True)
        total = -lowest(graph, bounds, ball, last, -rows, exact=True)[:, 0] + shift.sum(1)
        return total.clamp_min(1e-30).log() + most

    def loss_cost(self) -> Cost:
        """Count a linear function of each class, besides the intervals; with `fused` a single one."""
        rows = 1 if self.options.fused else self.classes
        return super().loss_cost() + (rows, rows)


class Sabr(ForBounds[SabrOptions]):
    """ℓ(ẑ(x', λε), y): the worst logits of a small box around an attack's result, Müller et al. 2023.

    The box lies within the ball of radius ε. Until ε rises, the samples themselves are trained on.
    """

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Check that the network can be bounded, in L∞.

        Raises:
            Refused: as in `ForBounds`, or the threat model is not L∞.
        """
        found = super().setup(model, task)
        if self.norm != "linf":
            raise Refused("sabr is for threat models of L∞: its boxes are no balls of L2")
        return found

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the samples with weight κ, and the bounds of small boxes with weight 1 − κ; none of 0."""
        if not self.share(step) and not self.options.regularisation:
            return [View.of(point)]
        kappa = self.options.kappa if self.share(step) else 1.0
        radius = self.radii(step, point)
        adv = self.perturbation(step, View.of(point, "adv", radius=radius), self.vicinity)
        box = small_box(self.ball(step, adv.origin, radius), adv.x.detach().float(), self.options.share)
        return weighed(View.of(point, weight=kappa), self.bound_view(step, adv, 1 - kappa, box))

    def loss_cost(self) -> Cost:
        """Count the centres and radii of the boxes, and the samples if they have a weight."""
        o = self.options
        return super().loss_cost() if o.kappa or o.regularisation else PASSES


class MtlIbp(ForBounds[MtlIbpOptions]):
    """(1 − α) · ℓ(f(x'), y) + α · ℓ(ẑ(x, ε), y): an attack and bounds, De Palma et al. 2024."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the attacked samples with weight 1 − α, and the bounds with weight α."""
        o, radius = self.options, self.radii(step, point)
        start = View.of(point, "adv", radius=o.attack_ratio * radius)
        adv = self.perturbation(step, start, self.vicinity)
        ball = self.ball(step, adv.origin, radius)
        clean = View.of(point, radius=radius)
        return weighed(adv.replace(weight=1 - o.alpha), self.bound_view(step, clean, o.alpha, ball))


class WorstLogits:
    """The worst logits within each view's own radius: the negative bounds of the margins, (N, K).

    A view without a radius of its own has the outputs of the model. The ball is around the sample, whatever
    a perturbation makes of it.
    """

    needs_sync = True

    def __init__(self, options: object) -> None:
        self._graphs = Graphs()

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Check that the network can be bounded; see `check_network`."""
        check_network(model, task)
        return ()

    def __call__(self, step: Step, view: View) -> Any:
        """Return logits (N, K), 0 for the label.

        Raises:
            Refused: the network cannot be bounded, or the threat model is neither L∞ nor L2.
        """
        vicinity: Any = step.method.vicinity  # type: ignore[attr-defined]
        if view.radius is None:
            return step.forward(view.x)
        y = view.y if view.y.dim() == 1 else view.y.argmax(1)
        x: Tensor = view.origin.detach().float()
        ball = Ball.around(x, view.radius, norm_of(vicinity), step.task.info.bounds, slack=False)
        return -interval_margins(step, self._graphs.of(step.model, x), ball, y)[1]
