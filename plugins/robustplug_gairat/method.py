"""Geometry-aware instance-reweighted adversarial training, Zhang et al. 2021 (arXiv:2010.01736)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from robustplug.api import Batch, Step, View, Wrapper

from . import GairatOptions
from .attack import STEPS, WITHSTOOD


def geometry_weights(
    withstood: Tensor, steps: Tensor, shift: float, function: Literal["tanh", "sigmoid", "discrete"]
) -> Tensor:
    """Return ω of each sample, (N,), in (0, 1], not normalised, as `GAIR` of the authors' code.

    With z = λ + 5 · (1 − 2κ/K): "tanh" is (1 + tanh z) / 2, "sigmoid" is 1 / (1 + e⁻ᶻ), and "discrete" is
    1 − κ / (K + 1).

    Args:
        withstood: κ/K, (N,), in [0, 1].
        steps: K, (N,).
        shift: λ.
        function: which function.
    """
    if function == "discrete":
        return 1 - withstood * steps / (steps + 1)
    z = shift + 5 * (1 - 2 * withstood)
    return torch.sigmoid(z) if function == "sigmoid" else (1 + torch.tanh(z)) / 2


class Gairat(Wrapper[GairatOptions]):
    """Weigh the loss of each perturbed sample by ω_i · N / Σ_j ω_j: more if the attack takes fewer steps.

    The views of the inner method that its attack made have these weights, on top of their own.
    """

    whole_batch = "gairat divides the weights by their mean over the whole batch"

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the views of the inner method, those that carry κ/K with other weights."""
        views = self.inner.views(step, point)
        if step.progress.epoch < self.options.warmup:
            return views
        return [self._weighed(step, view) if WITHSTOOD in view.info else view for view in views]

    def _weighed(self, step: Step, view: View) -> View:
        weights = geometry_weights(
            view.info[WITHSTOOD], view.info[STEPS], self.options.shift, self.options.weights
        )
        mean = weights.mean()
        step.average([mean])
        weights = weights / mean
        step.log("spread", (weights - 1).abs())
        own = view.weight
        if not callable(own):
            return view.replace(weight=own * weights)
        return view.replace(weight=lambda step, view: own(step, view) * weights)

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the mean distance of the weights from 1."""
        spread = step.logged.get("spread", torch.zeros((), device=views[0].index.device))
        return {**self.inner.mechanism(step, views), "spread": spread[None]}
