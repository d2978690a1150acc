"""Training for interval bounds, Gowal et al. 2018 (arXiv:1810.12715)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, ParamGroup, Progress, Refused, Step, Task, View

from . import IbpOptions
from .ball import Ball
from .graph import Graph
from .propagation import margins
from .reading import read_graph

# An interval takes its centre and its radius through the network.
_PASSES = Cost(2, 2)


def ramp(progress: Progress, warmup: float, rampup: float) -> float:
    """Return how far a schedule has come: 0 in the warm-up, then linearly to 1.

    As `linear_schedule` of deepmind/interval-bound-propagation, for its number of steps as shares of the run.

    Args:
        progress: position in the training run.
        warmup: share of the run before the ramp.
        rampup: share of the run that the ramp takes.
    """
    share = progress.moment / progress.epochs - warmup
    return float(share >= 0) if rampup == 0 else min(1.0, max(0.0, share / rampup))


def worst_case_loss(margin: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of the worst logits that bounds allow, (N,).

    These are −m_k for class k, and 0 for the label: log-softmax does not change if the label's logit is
    subtracted from all. They are the ẑ of Gowal et al. 2018, with the last layer and the margins as one.

    Args:
        margin: lower bounds of the logit of the label less each logit, (N, K).
        y: labels, int64 (N,).
    """
    return nn.functional.cross_entropy(-margin, y, reduction="none")


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


class Ibp(Method[IbpOptions]):
    """κ · ℓ(f(x), y) + (1 − κ) · ℓ(ẑ(x, ε), y): the samples, and the worst logits of interval bounds.

    ε and 1 − κ rise linearly, from 0 to their last values, after a warm-up. The bounds are of the network in
    eval mode: BatchNorm takes its running statistics, and dropout drops nothing.
    """

    # Bounds of the inputs are read on the host.
    needs_sync = True

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Check that the network can be bounded.

        Raises:
            Refused: a layer is not supported, or the threat model is neither L∞ nor L2.
        """
        shape = task.info.shape
        if shape is None or task.info.classes is None:
            raise Refused("interval bounds are for classifiers of inputs of one shape")
        if self.vicinity.norm not in (math.inf, 2.0):
            raise Refused("interval bounds are for threat models of L∞ or L2, such as linf")
        weight = next(model.parameters())
        read_graph(model, torch.zeros(2, *shape, dtype=weight.dtype, device=weight.device), fixed=False)
        if self.options.init == "ibp":
            keep_widths(model)
        self._known: tuple[nn.Module, torch.device, Graph] | None = None
        return super().setup(model, task)

    def share(self, step: Step) -> float:
        """Return how far ε and κ have come, from 0 to 1."""
        return ramp(step.progress, self.options.warmup, self.options.rampup)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the samples with weight κ, and their bounds with weight 1 − κ."""
        share = self.share(step)
        kappa = 1 - share * (1 - self.options.kappa)
        clean = View.of(point, weight=kappa)
        radius = share * self.options.ratio * step.radii(clean, self.vicinity)
        bound = View.of(
            point,
            "bound",
            weight=1 - kappa,
            scored=False,
            info={**point.info, "bound": radius},
            penalty=self._bounded,
        )
        return [clean, bound]

    def _bounded(self, step: Step, view: View) -> Tensor:
        """Return the loss of the worst logits, (N,), and count its passes."""
        x: Tensor = view.x.detach().float()
        graph = self._graph(step.model, x)
        norm = "linf" if self.vicinity.norm == math.inf else "l2"
        ball = Ball.around(x, view.info["bound"], norm, step.task.info.bounds, slack=False)
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        found = margins(graph, ball, labels, "ibp", exact=True)
        step.meter.forwards += int(_PASSES.forwards) * len(view)
        if torch.is_grad_enabled():
            step.meter.backwards += int(_PASSES.backwards) * len(view)
        step.log("bound", (found.scatter(1, labels[:, None], torch.inf).amin(1) > 0).float())
        return worst_case_loss(found, labels)

    def _graph(self, model: nn.Module, x: Tensor) -> Graph:
        known = self._known
        if known is None or known[0] is not model or known[1] != x.device:
            known = self._known = (model, x.device, read_graph(model, torch.cat([x[:1], x[:1]]), fixed=False))
        return known[2]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the radii that the bounds are about."""
        return {"bound": views[1].info["bound"]}

    def cost(self) -> Cost:
        """Count the samples, and their centres and radii."""
        return self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the samples, and their centres and radii."""
        return Cost(1, 1) + _PASSES
