"""Gradient ascent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...api import Cost, take, to_unit
from ..vicinities import per_sample
from .pgd import Ascent, Best, ascend

if TYPE_CHECKING:
    from ...api import Step, Vicinity, View
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
    """Momentum iterative FGSM, ascending the method's objective from the sample itself.

    Args:
        options: see MomentumOptions.
    """

    def __init__(self, options: MomentumOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the last iterate; during evaluation, at the first that fools the model."""
        radius = step.radii(view, vicinity)
        best = Best.at(view)
        with step.attack_mode():
            with torch.no_grad():
                target = step.target(view)
            part, rows, x = view, best.undecided(False), view.origin.detach()
            momentum = torch.zeros_like(x)
            for _ in range(self.options.steps):
                gradient, output, _ = ascend(step, part, Ascent(step.loss, target), x)
                if step.evaluating:
                    right = step.score(part, output)
                    left = right.nonzero()[:, 0]
                    if len(left) < len(rows):
                        gone = (~right).nonzero()[:, 0]
                        best.x[rows[gone]] = x[gone]
                        part, rows, x, target = part.rows(left), rows[left], x[left], take(target, left)
                        momentum, gradient = momentum[left], gradient[left]
                    if not len(rows):
                        break
                momentum = accumulate(momentum, gradient, self.options.decay)
                size = per_sample(radius[rows] / self.options.steps, x)
                x = vicinity.project(x + size * vicinity.steepest(momentum), part.origin, radius[rows])
            best.x[rows] = x.to(best.x.dtype)
        return view.replace(x=best.x)

    def cost(self, target: Cost) -> Cost:
        """Count one forward and one backward for each step, plus the cost of the target."""
        return target + (self.options.steps, self.options.steps)
