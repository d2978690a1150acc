"""Stability training, Zheng et al. 2016 (arXiv:1604.04326), and its output map in SPROUT's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Batch, Cost, Method, Step, View, as_rows

from . import ProductOptions, StabilityOptions


def clean_view(step: Step, view: View) -> View:
    """Return the view at the task's own samples, before the vicinity drew virtual ones."""
    batch = step.batch
    if view.index is batch.index:
        return view.replace(x=batch.x, role="clean", treat_as="")
    place = (view.index[:, None] == batch.index[None]).int().argmax(1)
    return view.replace(x=batch.x[place], role="clean", treat_as="")


class StableLabels:
    """h: y for clean views; softmax f(x) at the clean sample, with its gradient, for all others."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return labels or rows (N, K); share the forward pass with the clean view."""
        if view.kind == "clean":
            return view.y
        return step.output(clean_view(step, view)).float().softmax(1)


class Product:
    """log g with g = f(x) ∘ f(x̃)^weight: SPROUT, Table 1. Not normalised.

    Args:
        options: see ProductOptions.
    """

    def __init__(self, options: ProductOptions) -> None:
        self.weight = options.weight

    def __call__(self, step: Step, view: View) -> Tensor:
        """Return log f(x) + weight · log f(x̃), (N, K), where x is the sample that x̃ was drawn around."""
        clean = F.log_softmax(step.forward(clean_view(step, view).x).float(), 1)
        virtual = F.log_softmax(step.forward(view.x).float(), 1)
        return torch.add(clean, virtual, alpha=self.weight)


class LogLikelihood:
    """−Σ_k h_k · log g_k, SPROUT Eq. (4), for output maps that return log g.

    Normalising the product f(x) ∘ f(x̃) would add the log of its sum to the loss. That sum is largest where
    the two predictions agree, so the loss would reward disagreement.
    """

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,)."""
        losses: Tensor = -(as_rows(target, output.shape[1]) * output).sum(1)
        return losses


class Stability(Method[StabilityOptions]):
    """L_0(x) + α·D(f(x), f(x̃)) with D(p, q) = −Σ p log q, Zheng et al. 2016's loss of a classifier."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view with weight 1 and the virtual view with weight α."""
        virtual = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [View.of(step.batch), virtual.replace(weight=self.options.alpha)]

    def cost(self) -> Cost:
        """Count the attack, whose target takes one forward, and both views."""
        return self.perturbation.cost(Cost(1, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count both views."""
        return Cost(2, 2)
