"""Geometry-aware instance-reweighted adversarial training, Zhang et al. 2021 (arXiv:2010.01736)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robustplug.api import Batch, Step, View, Wrapper

from . import GairatOptions
from .attack import WITHSTOOD


def geometry_weights(withstood: Tensor, shift: float) -> Tensor:
    """Return ω = (1 + tanh(λ + 5 · (1 − 2κ/K))) / 2 of each sample, (N,), in (0, 1), not normalised.

    As "Tanh" in `GAIR` of the authors' code.

    Args:
        withstood: κ/K, (N,), in [0, 1].
        shift: λ.
    """
    return (1 + torch.tanh(shift + 5 * (1 - 2 * withstood))) / 2


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
        weights = geometry_weights(view.info[WITHSTOOD], self.options.shift)
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
