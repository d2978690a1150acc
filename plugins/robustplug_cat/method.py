"""CAT, Cheng et al. 2020 (arXiv:2002.06789), as Algorithm 8 of the first author's thesis states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    Method,
    ParamGroup,
    Step,
    Task,
    View,
    as_rows,
    cross_entropy,
    dirichlet,
    margin,
)

from . import CatLabelOptions, CatLossOptions, CatOptions


def custom_labels(labels: Tensor, classes: int, uncertainty: Tensor, draw: Tensor) -> Tensor:
    """Return (1 − cε_i)·y_i + cε_i·u_i, rows (N, K) that sum to 1: Eq. (4.4).

    Args:
        labels: classes int64 (N,) or rows (N, K).
        classes: K.
        uncertainty: cε_i in [0, 1], (N,).
        draw: u_i, rows (N, K) of a Dirichlet distribution.
    """
    rows = as_rows(labels, classes)
    weight = uncertainty[:, None]
    return (1 - weight) * rows + weight * draw


def next_radius(
    variant: str, radius: Tensor, trial: Tensor, fooled: Tensor, eta: float, eps_max: float
) -> Tensor:
    """Return the radius to store for each sample, (N,).

    Algorithm 8: ε_i ← ε_i + η, at most ε_max, if the attack failed; 0 if it succeeded. The second version
    of the released code never resets a radius to 0. It grows the radius when the attack succeeds instead.

    Args:
        variant: "paper", "official-v1" or "official-v2".
        radius: ε_i before the update.
        trial: radius used by the attack.
        fooled: whether the attack succeeded, bool (N,).
        eta: η.
        eps_max: ε_max.
    """
    if variant == "official-v2":
        return torch.where(fooled, trial, trial - eta).clamp(0, eps_max)
    return torch.where(fooled, 0.0, trial).clamp_max(eps_max)


class CustomLabels:
    """h: labels whose uncertainty grows with the sample's radius, Eq. (4.4); drawn anew at each call.

    The radius is `view.info["eps"]` if the method sets it, else the view's radius.
    """

    def __init__(self, options: CatLabelOptions) -> None:
        self.c, self.beta = options.c, options.beta

    def __call__(self, step: Step, view: View) -> Tensor:
        """Return rows (N, K).

        Raises:
            ValueError: the task is not classification, or the view has no radius for each sample.
        """
        classes = step.task.info.classes
        if classes is None:
            raise ValueError("the label map cat needs a classification task")
        eps: Tensor | None = view.info.get("eps", view.radius)
        if eps is None:
            raise ValueError("the label map cat needs views with a radius for each sample")
        concentration = torch.full((len(view), classes), self.beta, device=view.index.device)
        draw = dirichlet(concentration, step.rng, least=self.beta)
        return custom_labels(view.y, classes, (self.c * eps).clamp(0, 1), draw)


class MixedLoss:
    """CE(f(x'), ỹ) + max{max_{j≠y} Z_j − Z_y, −κ}, Eq. (4.6)."""

    def __init__(self, options: CatLossOptions) -> None:
        self.kappa, self.margin_weight = options.kappa, options.margin_weight
        if self.margin_weight == "radius-sum":
            self.whole_batch = 'margin_weight = "radius-sum" adds up over the whole batch'

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,)."""
        excess = margin(output, view.y, self.kappa)
        if self.margin_weight == "radius-sum":
            weight = view.info.get("margin", view.info.get("eps", view.radius))
            excess = excess * len(view) * weight
        entropy = cross_entropy(output, target)
        step.log("loss/ce", entropy)
        step.log("loss/margin", excess)
        return entropy + excess


class Cat(Method[CatOptions]):
    """Attack each sample within its own radius; grow it if the attack fails, reset it if it succeeds."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Start every ε_i at 0 (Algorithm 8), or keep them all at ε_max."""
        limit = self.options.eps_max
        self.eps_max = float(self.vicinity.eps if limit is None else limit)
        start = 0.0 if self.options.adaptive else self.eps_max
        self.eps = self.state.per_sample("eps", task.info.training_indices, start)
        return super().setup(model, task)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the attacked batch, with the radii that determine its labels."""
        o = self.options
        eps = self.eps.read(point.index)
        trial = eps + o.eta if o.adaptive else eps
        if o.variant != "paper":
            trial = trial.clamp_max(self.eps_max)
        # Algorithm 8 draws the attack's label before ε_i grows and the loss's label after it. The released
        # code weights the margin by the attacked radius, then by the stored one.
        before = {"eps": eps, "margin": trial}
        adv = self.perturbation(step, View.of(point, "adv", radius=trial, info=before), self.vicinity)
        if not o.adaptive:
            return [adv]
        with step.attack_mode(), torch.no_grad():
            fooled = ~step.score(adv, step.output(adv))
        new = next_radius(o.variant, eps, trial, fooled, o.eta, self.eps_max)
        step.log("eps", new)
        step.log("fooled", fooled)
        if o.variant == "official-v1":
            clean = fooled.view(-1, *(1,) * (adv.x.dim() - 1))
            adv = adv.replace(x=torch.where(clean, adv.origin, adv.x))
        return [adv.replace(info={"eps": new})]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the radii reached, in units of ε_max."""
        moved = super().mechanism(step, views)
        if not self.options.adaptive:
            return moved
        return {**moved, "radius": views[0].info["eps"] / (self.eps_max or 1.0)}

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Store the radii."""
        if self.options.adaptive:
            self.eps.write(views[0].index, views[0].info["eps"])

    def cost(self) -> Cost:
        """Count the attack, the check of its success, and the update."""
        return self.perturbation.cost(Cost(0, 0)) + (1 + self.options.adaptive, 1)
