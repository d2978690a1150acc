"""Auto-PGD towards each of the most likely wrong classes in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...api import Cost, Refused
from .apgd import apgd
from .pgd import Best

if TYPE_CHECKING:
    from ...api import Step, Vicinity, View
    from . import TargetedApgdOptions

# Key of a view's info with the class that each sample is moved towards.
GOAL = "goal of apgd-t"


def targeted_dlr(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio of each sample, (N,), as a loss to maximise.

    −(z_y − z_t) / (z_(1) − (z_(3) + z_(4)) / 2): Croce & Hein 2020 (arXiv:2003.01690 Eq. 7). With three
    classes the fourth largest logit does not exist, and the third takes its place.

    Args:
        logits: (N, K), K at least 3.
        labels: classes int64 (N,).
        goal: the wrong class t of each sample, int64 (N,).
    """
    logits = logits.float()
    largest = logits.topk(min(4, logits.shape[1]), dim=1).values
    right, wrong = (logits.gather(1, each[:, None])[:, 0] for each in (labels, goal))
    return (wrong - right) / (largest[:, 0] - (largest[:, 2] + largest[:, -1]) / 2 + 1e-12)


class TargetedApgd:
    """Auto-PGD on the targeted DLR loss, for the most likely wrong classes of each sample.

    Args:
        options: see TargetedApgdOptions.
    """

    def __init__(self, options: TargetedApgdOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x.

        Raises:
            Refused: the inputs have no gradient, or the model has fewer than three classes.
        """
        radius = step.radii(view, vicinity)
        labels: Tensor = view.y if view.y.dim() == 1 else view.y.argmax(1)
        best = Best.at(view)
        with step.attack_mode():
            with torch.no_grad():
                logits: Tensor = step.output(view.replace(x=view.origin)).float()
            if logits.shape[1] < 3:
                raise Refused("the targeted DLR loss needs at least 3 classes; use margin or cross entropy")
            ranks = logits.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
            for number in range(min(self.options.targets, logits.shape[1] - 1)):
                rows = best.undecided(step.evaluating)
                if not len(rows):
                    break
                aimed = view.replace(y=labels, info={**view.info, GOAL: ranks[:, number]}).rows(rows)
                apgd(step, aimed, vicinity, _losses, radius[rows], best, rows, self.options.steps)
        return view.replace(x=best.x)

    def cost(self, target: Cost) -> Cost:
        """Count the passes of Auto-PGD for each target, and a forward that ranks the classes."""
        passes = self.options.targets * (self.options.steps + 1)
        return Cost(passes + 1, passes)


def _losses(moved: View, output: Tensor) -> Tensor:
    return targeted_dlr(output, moved.y, moved.info[GOAL])
