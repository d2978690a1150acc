"""The computation of my-part."""

from __future__ import annotations

from collections.abc import Sequence

from robustplug.api import Batch, Cost, Method, Step, View

from . import MyPartOptions


class MyPart(Method[MyPartOptions]):
    """Minimise α·CE(f(x), y) + (1 − α)·CE(f(x'), y): Goodfellow et al. 2015, §6."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view with weight α, and the perturbed view with weight 1 − α.

        Args:
            step: the current update.
            point: the samples, inputs (N, C, H, W) in [0, 1].
        """
        alpha = self.options.alpha
        clean = View.of(point)
        adv = self.perturbation(step, View.of(point, "adv"), self.vicinity)
        return [clean.replace(weight=alpha), adv.replace(weight=1 - alpha)]

    def loss_cost(self) -> Cost:
        """Count a forward and a backward of both views."""
        return Cost(2, 2)
