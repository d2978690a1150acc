"""Attacks for these tasks: to the end on all samples, on pixels, and with the rows of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Cost, Feed, Perturbation, Refused

from .segmentation import IGNORED, pixel_losses, right_pixels

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from .options import OtherRowsOptions, SegPgdOptions, WorstOptions


class Worst:
    """Run another attack to its end on all samples, right or not, and beyond a first success.

    The measures of its row, such as the mean error, are then those at the worst points found.

    Args:
        options: see WorstOptions.
        attack: the attack.
    """

    needs_sync = True

    def __init__(self, options: WorstOptions, *, attack: Perturbation) -> None:
        self.attack = attack

    def aim(self, step: Step, view: View) -> Mapping[str, Any]:
        """Return no goal besides the loss; that there is one starts the row with all samples."""
        return {}

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the points of the attack."""
        before, step.evaluating = step.evaluating, False
        try:
            return self.attack(step, view, vicinity)
        finally:
            step.evaluating = before

    def cost(self, target: Cost) -> Cost:
        """Return the cost of the attack."""
        return self.attack.cost(target)


def segpgd_weights(right: Tensor, step: int, steps: int) -> Tensor:
    """Return 1 − λ for pixels that are right and λ for others, with λ = t / 2T.

    Args:
        right: bool (N, H, W).
        step, steps: t, from 0, and T.
    """
    share = step / (2 * steps)
    return torch.where(right, 1 - share, share)


class SegPgd:
    """SegPGD: gradient ascent that turns from the pixels that are right to all pixels as it goes on.

    Gu et al. 2022, SegPGD (arXiv:2207.12391). Of all iterates of all starts, the one with the fewest right
    pixels is returned.

    Args:
        options: see SegPgdOptions.
    """

    needs_sync = True

    def __init__(self, options: SegPgdOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x.

        Raises:
            Refused: the labels are no classes of pixels.
        """
        if view.y.dim() != 3:
            raise Refused("it attacks the classes of pixels, and the labels are none")
        o, radius = self.options, step.radii(view, vicinity)
        size = (2.5 * radius / o.steps).view(-1, 1, 1, 1)
        x = view.origin.detach().clone()
        least = torch.full((len(view),), 2.0, device=x.device)
        with step.attack_mode(o.batchnorm):
            for _ in range(o.restarts):
                point = vicinity.random_point(view.origin, radius, step.rng)
                for number in range(o.steps + 1):
                    point = point.detach().requires_grad_(number < o.steps)
                    with torch.set_grad_enabled(number < o.steps):
                        output = step.output(view.replace(x=point))
                        right, counts = right_pixels(output.detach(), view.y)
                    share = right.flatten(1).sum(1) / counts.flatten(1).sum(1).clamp_min(1)
                    better = share < least
                    least = torch.where(better, share, least)
                    x = torch.where(better.view(-1, 1, 1, 1), point.detach(), x)
                    if number == o.steps:
                        break
                    weights = segpgd_weights(right, number, o.steps) * (view.y != IGNORED)
                    gradient = step.gradient((pixel_losses(output, view.y) * weights).sum(), point)
                    moved = point.detach() + size * vicinity.steepest(gradient)
                    point = vicinity.project(moved, view.origin, radius)
        return view.replace(x=x.detach())

    def cost(self, target: Cost) -> Cost:
        """Count a forward and a backward for each step, and a forward for each last iterate."""
        o = self.options
        return Cost(o.restarts * (o.steps + 1), o.restarts * o.steps)


class OtherRows:
    """Move each sample towards training samples with other labels, as far as the threat model allows.

    Only decisions are asked for, so it attacks trees and other models without gradients, in every set. The
    samples of other labels are tried from the nearest to the farthest, in standard deviations of the inputs.

    Args:
        options: see OtherRowsOptions.
    """

    needs_sync = True

    def __init__(self, options: OtherRowsOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the first point of each sample that the model gets wrong, or at its origin.

        Raises:
            Refused: the task has no training samples to move towards, or its labels are no rows of numbers.
        """
        info = step.task.info
        if not info.sizes.get("train") or info.pool is not None:
            raise Refused("it moves samples towards those of the training split, and there are none")
        feed = Feed(batch_size=4096, samples=self.options.pool, device=str(view.index.device))
        others = list(step.task.batches("train", feed))
        rows, labels = torch.cat([each.x for each in others]), torch.cat([each.y for each in others])
        same_label = (
            (view.y[:, None] == labels[None]).flatten(2).all(2)
            if labels.dim() > 1
            else (view.y[:, None] == labels[None])
        )
        std = torch.tensor(info.std or (1.0,), device=rows.device).view(1, -1, *(1,) * (rows.dim() - 2))
        far = torch.cdist((view.origin / std).flatten(1), (rows / std).flatten(1))
        order = far.masked_fill(same_label, torch.inf).argsort(1)
        x, radius = view.origin.detach().clone(), step.radii(view, vicinity)
        left = torch.arange(len(view), device=x.device)
        with step.attack_mode(), torch.no_grad():
            for number in range(min(self.options.queries, order.shape[1])):
                near, part = order[left, number], view.rows(left)
                moved = vicinity.project(rows[near].to(x.dtype), part.origin, radius[left])
                wrong = ~step.score(part, step.output(part.replace(x=moved)))
                wrong &= ~same_label[left, near]
                x[left[wrong]] = moved[wrong]
                left = left[~wrong]
                if not len(left):
                    break
        return view.replace(x=x)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it ends at the first success."""
        return Cost.unknown()
