"""RSLAD, Zi et al. 2021; ARD, Goldblum et al. 2020 (arXiv:1905.09747); AdaAD, Huang et al. 2023 (CVPR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, Step, View, cross_entropy, kl_divergence

from . import RsladOptions

# Keys of a view's info: the teacher's rows for the view, the teacher itself where it is asked at every x that
# the view is moved to, and the temperature of both.
ROWS, NETWORK, TEMPERATURE = "teacher", "teacher-network", "temperature"


def predicted(step: Step, teacher: nn.Module, x: Any, temperature: float) -> Tensor:
    """Return softmax(T(x)/τ), (N, K), float32."""
    logits: Tensor = step.forward(x, module=teacher)
    return (logits.float() / temperature).softmax(1)


class TeacherPrediction:
    """h: what the teacher predicts for the view, without a gradient; the label where it is not asked."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return rows (N, K), or labels."""
        return view.info.get(ROWS, view.y)


class Distillation:
    """τ² · KL(T_τ ‖ S_τ), and cross entropy where the teacher is not asked.

    Within the attack of AdaAD, the teacher is asked at each iterate, and the gradient goes through both
    networks.
    """

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample, (N,); log the agreement of teacher and student."""
        if TEMPERATURE not in view.info:
            return cross_entropy(output, target)
        temperature = view.info[TEMPERATURE]
        if NETWORK in view.info:
            target = predicted(step, view.info[NETWORK], view.x, temperature)
        elif view.kind != "clean" and not view.x.requires_grad:  # an iterate of an attack requires it
            step.log("agreement", (output.argmax(1) == target.argmax(1)).float())
        losses: Tensor = temperature**2 * kl_divergence(output / temperature, target)
        return losses


class Rslad(Method[RsladOptions]):
    """min (1 − α) · KL(T(x) ‖ S(x)) + α · KL(T(x) ‖ S(x')), where x' maximises the latter.

    T is the teacher and S the student. The options replace T(x) by the label at the clean samples, and by
    T(x') at the perturbed ones.
    """

    teacher: nn.Module

    @property
    def _asks_at_clean(self) -> bool:
        o = self.options
        return o.asked_at == "clean" or (o.clean == "teacher" and o.alpha < 1)

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view with weight 1 − α, if that is not 0, and the perturbed one with weight α."""
        o = self.options
        told = {**point.info, TEMPERATURE: o.temperature}
        clean = View.of(point, weight=1 - o.alpha)
        if self._asks_at_clean:
            told[ROWS] = predicted(step, self.teacher, point.x, o.temperature)
            if o.clean == "teacher":
                clean = clean.replace(info=told)
        if o.asked_at == "perturbed":
            told = {**point.info, TEMPERATURE: o.temperature, NETWORK: self.teacher}
        adv = self.perturbation(step, View.of(point, "adv", info=told, weight=o.alpha), self.vicinity)
        if o.asked_at == "perturbed":
            rows = predicted(step, self.teacher, adv.x, o.temperature)
            adv = adv.replace(info={**point.info, TEMPERATURE: o.temperature, ROWS: rows})
        return [clean, adv] if o.alpha < 1 else [adv]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far samples move, and how often teacher and student agree at the perturbed ones."""
        agreement = step.logged.get("agreement", torch.zeros((), device=views[0].index.device))
        return {**super().mechanism(step, views), "agreement": agreement[None]}

    def cost(self) -> Cost:
        """Count the attack, the teacher's predictions, and the views.

        An attack on the method's own objective also runs the teacher at every step of AdaAD, both ways.
        """
        attack, asked = self.perturbation.cost(Cost(0, 0)), Cost(self._asks_at_clean, 0)
        if self.options.asked_at == "perturbed":
            asked += (1, 0)
            own_objective = self.perturbation.cost(Cost(1, 0)) != attack
            asked += attack if own_objective else (0, 0)
        return attack + asked + self.loss_cost()

    def loss_cost(self) -> Cost:
        """Count the views."""
        views = 2 if self.options.alpha < 1 else 1
        return Cost(views, views)
