"""Bilateral adversarial training, Wang and Zhang 2019 (arXiv:1811.10716)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Cost, Method, Step, View

from . import BilateralOptions, BilateralTrainingOptions


def bilateral_labels(logits: Tensor, labels: Tensor, ratio: float, gamma: float) -> Tensor:
    """Return adversarial labels, rows (N, K) that sum to 1.

    With L_k = −log p_k(x): y'_k = δ·(L_k − min_{j≠y} L_j + γ) / Σ_{j≠y}(L_j − min L + γ) for the wrong
    classes and y'_y = 1 − δ, where δ is such that y'_y is `ratio` times the largest y'_k. This follows
    the authors' code. The label ascends its gradient −log p, so the least likely wrong class gets most.

    Args:
        logits: logits at the clean samples, (N, K), K at least 2.
        labels: classes int64 (N,).
        ratio: `multi` in the authors' code, where it is 9. y'_y lies in
            [ratio / (ratio + K − 1), ratio / (ratio + 1)].
        gamma: γ, above 0; 0.01 in the authors' code.
    """
    losses = -F.log_softmax(logits.float(), 1)
    label = labels[:, None]
    least = losses.scatter(1, label, torch.inf).amin(1, keepdim=True)
    excess = (losses - least + gamma).scatter(1, label, 0.0)
    shares = excess / excess.sum(1, keepdim=True)
    delta = 1 / (1 + ratio * shares.amax(1, keepdim=True))
    return (delta * shares).scatter(1, label, 1 - delta)


class BilateralLabels:
    """h: adversarial labels from the model's prediction at the clean sample in eval mode.

    Args:
        options: see BilateralOptions.
    """

    def __init__(self, options: BilateralOptions) -> None:
        self.ratio, self.gamma = options.ratio, options.gamma

    def __call__(self, step: Step, view: View) -> Tensor:
        """Return rows (N, K) without a gradient; take one forward pass."""
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        with step.attack_mode(), torch.no_grad():
            logits = step.output(view.replace(x=view.origin))
        return bilateral_labels(logits, labels, self.ratio, self.gamma)


class Bilateral(Method[BilateralTrainingOptions]):
    """Train on adversarial examples with adversarial labels."""

    def cost(self) -> Cost:
        """Count the attack, the clean prediction for the labels, and the update."""
        return self.perturbation.cost(Cost(1, 0)) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the prediction for the labels, and the view."""
        return Cost(2, 1)
