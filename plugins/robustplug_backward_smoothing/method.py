"""Adversarial training with N-FGSM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustplug.api import Batch, Method, Step, View

from . import NFgsmTrainingOptions
from .attacks import NFgsm


class NFgsmTraining(Method[NFgsmTrainingOptions]):
    """Train on noise plus a step, which together may leave the ball of ε in the threat model."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the attacked view, with the radius that the attack may use."""
        reach = self.perturbation.reach if isinstance(self.perturbation, NFgsm) else 1.0
        radius = torch.full((len(point),), reach * float(self.vicinity.eps), device=point.index.device)
        return [self.perturbation(step, View.of(point, "adv", radius=radius), self.vicinity)]
