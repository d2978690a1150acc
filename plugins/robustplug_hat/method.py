"""Helper-based adversarial training, Rade and Moosavi-Dezfooli 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, Step, View

from . import HatOptions


class Hat(Method[HatOptions]):
    """min CE(f(x), y) + β · KL(f(x) ‖ f(x')) + γ · CE(f(x + reach · (x' − x)), ỹ).

    ỹ is the class that a standard network predicts at x'.
    """

    helper: nn.Module

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view, the perturbed one with weight β, and the helper examples with weight γ.

        Losses treat the helper examples as clean samples with the labels ỹ. Their radius is `reach` times
        that of the perturbed ones, and they are clipped to the range of the inputs.
        """
        o = self.options
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        views = [View.of(point), adv.replace(weight=o.beta)]
        if o.gamma:
            logits: Tensor = step.forward(adv.x, module=self.helper)
            radius = o.reach * step.radii(adv, self.vicinity)
            far = adv.origin + o.reach * (adv.x - adv.origin)
            helper = adv.replace(
                x=self.vicinity.project(far, adv.origin, radius),
                y=logits.argmax(1),
                role="helper",
                treat_as="clean",
                weight=o.gamma,
                radius=radius,
            )
            views.append(helper)
        return views

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far samples move, and how far the helper examples are from the perturbed ones."""
        beyond = torch.zeros(1, device=views[0].index.device)
        if self.options.gamma:
            beyond = (views[2].x - views[1].x).abs().flatten(1).amax(1)
        return {**super().mechanism(step, views[:2]), "helper": beyond}

    def cost(self) -> Cost:
        """Count the attack, whose target takes one forward, the helper network's labels, and the views."""
        return self.perturbation.cost(Cost(1, 0)) + (bool(self.options.gamma), 0) + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the views."""
        views = 3 if self.options.gamma else 2
        return Cost(views, views)
