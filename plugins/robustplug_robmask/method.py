"""RobMask (thesis §6.3, Algorithm 10) and its special case AdvProp (Xie et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, ParamGroup, Step, Task, View

from . import RobMaskOptions
from .masks import Drawn, fold, masks, put_masks, switch


def exact(number: Tensor) -> Tensor:
    """Return a number in the precision of Python's numbers, where the device has it."""
    return number if number.device.type == "mps" else number.double()


class MaskedOutput:
    """g∘f: the model under the mask of the view's strength, `info["strength"]`, or 0 for clean views."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return the model's outputs under the view's mask, then select the mask of strength 0 again."""
        strength = 0.0 if view.kind == "clean" else view.info.get("strength", 0.0)
        switch(step.model, strength)
        try:
            return step.forward(view.x, variant=strength)
        finally:
            switch(step.model, 0.0)


class RobMask(Method[RobMaskOptions]):
    """Train clean samples with the mask of strength 0, and attacked samples with that of their strength."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Put the masks into the model.

        Raises:
            Refused: the model has no BatchNorm with weight and bias.
        """
        o = self.options
        layers = put_masks(model, o.bases, o.statistics == "separate")
        groups = [*super().setup(model, task)]
        if o.mask_lr is not None:
            groups.append(
                ParamGroup("masks", [p for each in layers for p in each.parameters()], o.mask_lr, always=True)
            )
        return groups

    def strength(self, step: Step) -> float | Drawn:
        """Draw the strength p of a batch; a number where it is always the same."""
        o, device = self.options, step.rng.device
        draw = torch.rand((), generator=step.rng, device=device)
        if o.strengths == "anchors":
            steps = o.bases - 1
            if steps == 1:
                return 1.0
            draw = (1 + (exact(draw) * steps).floor()) / steps
        return Drawn.of(exact(draw), o.bases, mixture=o.statistics == "shared")

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the clean view, and the view attacked with ε = p·ε_max under the mask of p."""
        p = self.strength(step)
        eps, shape = float(self.vicinity.eps), (len(point),)
        if isinstance(p, Drawn):
            radius = (p.p * eps).float().repeat(shape)
        else:
            radius = torch.full(shape, p * eps, device=point.index.device)
        view = View.of(point, "adv", radius=radius).replace(info={**point.info, "strength": p})
        adv = self.perturbation(step, view, self.vicinity)
        share = self.options.clean_weight
        return [View.of(point, weight=share), adv.replace(weight=1 - share)]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return how far the columns of the masks are from the first one, on average for each layer."""
        apart = [(each.weight[:, 1:] - each.weight[:, :1]).abs().mean() for each in masks(step.model)]
        return {**super().mechanism(step, views), "mask": torch.stack(apart).nan_to_num()}

    def export(self, model: nn.Module) -> nn.Module:
        """Return an ordinary module with the mask of `deploy`; keep the masks in the model."""
        return fold(model, self.options.deploy)

    def loss_cost(self) -> Cost:
        """Count both views."""
        return Cost(2, 2)
