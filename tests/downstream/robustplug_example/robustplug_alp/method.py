"""Adversarial logit pairing, Kannan et al. 2018 (arXiv:1803.06373)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from robustplug.api import Batch, Cost, Method, Step, View
from torch import Tensor

from . import AlpOptions


def pairing(logits: Tensor, others: Tensor) -> Tensor:
    """Return the mean squared difference of two rows of logits, (N,).

    Args:
        logits, others: (N, K).
    """
    return (logits.float() - others.float()).square().mean(1)


class PairingLoss:
    """Cross entropy; for views of kind "pair" the distance to the logits at the view's origin."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,); the clean forward is shared with the clean view."""
        if view.kind == "pair":
            return pairing(output, step.output(view.at_origin()))
        return F.cross_entropy(output.float(), target, reduction="none")


class Alp(Method[AlpOptions]):
    """Minimise CE(f(x), y) + CE(f(x'), y) + λ·‖f(x) − f(x')‖²/K: §3.1 and §3.2, mixed minibatches.

    The inner maximisation ascends the cross entropy of the perturbed view alone.
    """

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view, the perturbed one, and the pair of both with weight λ."""
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [
            View.of(point),
            adv,
            adv.replace(role="pair", scored=False, weight=self.options.pairing),
        ]

    def loss_cost(self) -> Cost:
        """Count two forwards and backwards: the pair reuses both."""
        return Cost(2, 2)
