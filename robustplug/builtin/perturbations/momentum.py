"""Gradient ascent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Cost, take, to_unit
from ..vicinities import per_sample
from .pgd import Ascent, Best, ascend, bound, direction

if TYPE_CHECKING:
    from ...api import Loss, Step, Vicinity, View
    from . import MomentumOptions


def accumulate(momentum: Tensor, gradient: Tensor, decay: float) -> Tensor:
    """Return decay · momentum + gradient / mean |gradient| of each sample.

    Dong et al. 2018 (arXiv:1710.06081 Eq. 6). The mean instead of the sum keeps the values near 1 and
    changes no direction.
    """
    gradient = to_unit(gradient)
    size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return decay * momentum + gradient / per_sample(size, gradient)


class MiFgsm:
    """Momentum iterative FGSM from the sample itself, on the method's objective or a separate loss.

    Args:
        options: see MomentumOptions.
        loss: loss against the true labels that replaces the method's objective.
    """

    def __init__(self, options: MomentumOptions, *, loss: Loss | None) -> None:
        self.options, self.own_loss = options, loss

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the last iterate; during evaluation, at the first that fools the model."""
        radius, options = step.radii(view, vicinity), self.options
        losses = step.loss if self.own_loss is None else bound(self.own_loss, step)

        def climb(part: View, x: Tensor, target: Any, momentum: Tensor, near: Tensor) -> tuple[Any, ...]:
            gradient, output, _ = ascend(step, part, Ascent(losses, target), x)
            momentum = accumulate(momentum, gradient, options.decay)
            moved = x + per_sample(near / options.steps, x) * direction(vicinity, momentum, options.steps)
            right = step.score(part, output) if step.evaluating else None
            return vicinity.project(moved, part.origin, near), momentum, right

        best = Best.at(view)
        with step.attack_mode():
            with torch.no_grad():
                target = view.y if self.own_loss is not None else step.target(view)
            part, rows, x = view, best.undecided(False), view.origin.detach()
            momentum = torch.zeros_like(x)
            for _ in range(self.options.steps):
                after, momentum, right = step.iterate(climb, part, x, target, momentum, radius[rows])
                if right is not None:
                    left = right.nonzero()[:, 0]
                    if len(left) < len(rows):
                        gone = (~right).nonzero()[:, 0]
                        best.x[rows[gone]] = x[gone]
                        part, rows, target = part.rows(left), rows[left], take(target, left)
                        after, momentum = after[left], momentum[left]
                    if not len(rows):
                        break
                x = after
            best.x[rows] = x.to(best.x.dtype)
        return view.replace(x=best.x)

    def cost(self, target: Cost) -> Cost:
        """Count one forward and one backward for each step, plus the cost of the target."""
        own = Cost(self.options.steps, self.options.steps)
        return own if self.own_loss is not None else own + target
