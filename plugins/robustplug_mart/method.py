"""MART, Wang et al. 2020 (OpenReview rklOg6EFwS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustplug.api import (
    Batch,
    Cost,
    Method,
    Step,
    View,
    as_rows,
    cross_entropy,
    kl_divergence,
)

from . import MartOptions

DIVERGENCE = "divergence"


def boosted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return −log p_y − log(1 − max_{k≠y} p_k) of each sample, (N,): the paper's BCE.

    The second term is log Σ_k e^{z_k} − log Σ_{k≠j} e^{z_k} for the most likely wrong class j, which is
    finite where p_j rounds to 1.

    Args:
        logits: z, (N, K).
        target: classes int64 (N,), or rows (N, K), whose largest entry is taken as y in the second term.
    """
    logits = logits.float()
    labels = (target if target.dim() == 1 else target.argmax(1))[:, None]
    rival = logits.detach().scatter(1, labels, -torch.inf).argmax(1, keepdim=True)
    rest = logits.scatter(1, rival, -torch.inf)
    return cross_entropy(logits, target) + logits.logsumexp(1) - rest.logsumexp(1)


def doubt(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 − p_y of each sample, (N,), in [0, 1], with its gradient.

    Args:
        logits: (N, K).
        target: classes int64 (N,), or rows (N, K) that sum to 1.
    """
    return 1 - (as_rows(target, logits.shape[1]) * logits.float().softmax(1)).sum(1)


class MartTarget:
    """h: softmax f(x) at the origin, with its gradient, for views of a divergence; y for all others."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return labels, or rows (N, K)."""
        if view.kind != DIVERGENCE:
            return view.y
        return step.output(view.at_origin()).float().softmax(1)


class MartLoss:
    """KL(f(x) ‖ f(x')) for views of a divergence, BCE(f(x'), y) for all others."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,)."""
        if view.kind == DIVERGENCE:
            return kl_divergence(output, target)
        return boosted_cross_entropy(output, target)


class Mart(Method[MartOptions]):
    """min E[BCE(f(x'), y) + β · KL(f(x) ‖ f(x')) · (1 − p_y(x))], the objective of MART.

    x' maximises the cross entropy. Gradients flow through all of it, the weight 1 − p_y(x) too.
    """

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the perturbed samples twice: for the boosted cross entropy, and for the divergence."""
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [adv, adv.replace(role=DIVERGENCE, weight=self._weight, scored=False)]

    def _weight(self, step: Step, view: View) -> Tensor:
        weight = self.options.beta * doubt(step.output(view.at_origin()), view.y)
        step.log("weight", weight)
        return weight

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far the samples moved, and the mean weight of the divergence."""
        return {**super().mechanism(step, views), "weight": step.logged["weight"][None]}

    def cost(self) -> Cost:
        """Count the attack, which needs no prediction, and the perturbed and the clean samples."""
        return self.perturbation.cost(Cost(0, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the perturbed and the clean samples once each; both views share them."""
        return Cost(2, 2)
