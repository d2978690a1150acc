"""TRADES, Zhang et al. 2019 (arXiv:1901.08573)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from robustplug.api import Batch, Cost, LabelMap, Loss, Method, Step, View

from . import TradesLabelOptions, TradesLossOptions, TradesOptions


class CleanPrediction:
    """h: y for clean views; softmax f(x) at the origin, with its gradient, for all others.

    Args:
        options: see TradesLabelOptions.
        labels: label map of the clean views; None for y itself.
    """

    def __init__(self, options: TradesLabelOptions, *, labels: LabelMap | None) -> None:
        self.labels = labels

    def __call__(self, step: Step, view: View) -> Any:
        """Return labels or rows (N, K); share the forward pass with the clean view."""
        if view.kind == "clean":
            return view.y if self.labels is None else self.labels(step, view)
        return step.output(view.at_origin()).float().softmax(1)


class TradesLoss:
    """Cross entropy for clean views, KL(f(x) ‖ f(x')) for all others: Eq. (5), Algorithm 1.

    Args:
        options: see TradesLossOptions.
        clean, divergence: other losses in their places. Views that are not clean get the clean one where they
            have class numbers, as in an evaluation.
    """

    def __init__(self, options: TradesLossOptions, *, clean: Loss, divergence: Loss) -> None:
        self.clean, self.divergence = clean, divergence

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,)."""
        labelled = view.kind == "clean" or target.dim() == 1
        return (self.clean if labelled else self.divergence)(step, view, output, target)


class Trades(Method[TradesOptions]):
    """min E[CE(f(x), y) + β · max KL(f(x) ‖ f(x'))], Eq. (5)."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view with weight 1 and the perturbed one with weight β.

        Algorithm 1, lines 5-9: the inner maximisation ascends the same divergence.
        """
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [View.of(point), adv.replace(weight=self.options.beta)]

    def cost(self) -> Cost:
        """Count the attack, whose target takes one forward, and both views."""
        return self.perturbation.cost(Cost(1, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count both views."""
        return Cost(2, 2)
