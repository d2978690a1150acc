"""The best change of one value at a time, from logits only, in any vicinity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Cost, margin

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity, View

    from . import GreedyOptions


class Greedy:
    """Try single values at both ends of their range, project, and keep the best proposal of each round.

    In a table with few features, every feature is tried in every round; an end of the range stands for the
    largest change that the vicinity still allows together with the others.

    Args:
        options: see GreedyOptions.
    """

    # Which proposals there are depends on the number of values, and samples leave when they are fooled.
    needs_sync = True

    def __init__(self, options: GreedyOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the best points found."""
        radius, x = step.radii(view, vicinity), view.origin.detach().clone()
        reach = _reach(step, x)
        with step.attack_mode(), torch.no_grad():
            rows = torch.arange(len(view), device=x.device)
            best = torch.full((len(view),), -torch.inf, device=x.device)
            for _ in range(self.options.rounds):
                part, near = view.rows(rows), radius[rows]
                here, found, fooled = self._round(step, part, vicinity, near, x[rows], best[rows], reach)
                x[rows], best[rows] = here, found
                rows = rows[~fooled] if step.evaluating else rows
                if not len(rows):
                    break
        return view.replace(x=x)

    def _round(
        self,
        step: Step,
        view: View,
        vicinity: Vicinity,
        radius: Tensor,
        x: Tensor,
        best: Tensor,
        reach: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points after a round, their margins, and which fool the model."""
        count = x[0].numel()
        tried = min(count, self.options.candidates)
        order = torch.rand(len(x), count, generator=step.rng, device=x.device).argsort(1)[:, :tried]
        start, fooled = x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for number in range(tried):
            for sign in (-1.0, 1.0):
                flat = start.flatten(1)
                at = order[:, number : number + 1]
                target = flat.scatter(1, at, flat.gather(1, at) + sign * reach.to(flat.dtype))
                moved = vicinity.project(target.view_as(start), view.origin, radius)
                output = step.output(view.replace(x=moved))
                loss = margin(output, view.y)
                better = loss > best
                best = torch.where(better, loss, best)
                wrong = ~step.score(view, output)
                fooled = torch.where(better, wrong, fooled)
                x = torch.where(better.view(-1, *(1,) * (x.dim() - 1)), moved, x)
        return x, best, fooled

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the number of values."""
        return Cost.unknown()


def _reach(step: Step, x: Tensor) -> Tensor:
    """Return a change that reaches beyond every valid range."""
    low, high = (torch.as_tensor(side, dtype=torch.float32) for side in step.task.info.bounds)
    return (2 * (high - low).max() + 1).to(x.device)
