"""Early-stopped PGD, Zhang et al. 2020 (arXiv:2002.11242)."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from robustplug.api import Cost, Loss, Step, Vicinity, View, normal_like, take

from . import EarlyStoppedOptions

WITHSTOOD = "withstood"
"""Key of a view's info: κ/K, the share of the steps at whose start a sample is classified rightly, (N,)."""
STEPS = "steps"
"""Key of a view's info: K, the largest number of steps, (N,)."""


def countdown(right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Return which samples stop at an iterate, bool (N,), and how many steps the others may still take.

    As `earlystop` of the authors' code: a sample that is misclassified stops if none of its τ steps is left;
    otherwise it uses one up.

    Args:
        right: whether each sample is classified rightly, bool (N,).
        left: how many steps each one may take while it is misclassified, (N,).
    """
    stops = ~right & (left <= 0)
    return stops, left - (~right & ~stops).to(left.dtype)


class EarlyStopped:
    """PGD in which a sample stays where it is misclassified, or goes on for τ steps of those.

    Samples that have stopped leave the batch, so later steps cost less.

    Args:
        options: see EarlyStoppedOptions.
        loss: loss against the true labels that replaces the method's objective.
    """

    needs_sync = True

    def __init__(self, options: EarlyStoppedOptions, *, loss: Loss | None) -> None:
        self.options, self.own_loss = options, loss

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x, and κ/K as "withstood" and K as "steps" in its info."""
        options, radius = self.options, step.radii(view, vicinity)
        size = 2.5 * radius / options.steps
        if options.step_size is not None:
            size = torch.full_like(radius, options.step_size)
        rows = torch.arange(len(view), device=radius.device)
        left = torch.full_like(radius, self._tau(step))
        withstood = torch.zeros_like(radius)
        part = view
        with step.attack_mode():
            with torch.no_grad():
                target = view.y if self.own_loss is not None else step.target(view)
            x = self._start(step, view, vicinity, radius)
            reached = x.clone()
            for _ in range(options.steps):
                gradient, right = self._climb(step, part, x, target)
                withstood[rows] += right.to(withstood.dtype)
                stops, left = countdown(right, left)
                # Noise of its own for each sample, however many others have stopped.
                noise = options.noise * normal_like(view.origin, step.rng)
                if bool(stops.any()):
                    on = (~stops).nonzero()[:, 0]
                    rows, part, left, target = rows[on], part.rows(on), left[on], take(target, on)
                    x, gradient = x[on], gradient[on]
                    if not len(rows):
                        break
                move = _per_sample(size[rows], x) * vicinity.steepest(gradient) + noise[rows]
                x = vicinity.project(x + move, part.origin, radius[rows])
                reached[rows] = x
        share = withstood / options.steps
        step.log(WITHSTOOD, share)
        most = torch.full_like(share, options.steps)
        return view.replace(x=reached, info={**view.info, WITHSTOOD: share, STEPS: most})

    def _tau(self, step: Step) -> int:
        tau, milestones = self.options.tau, self.options.milestones
        return tau if isinstance(tau, int) else tau[bisect_right(milestones, step.progress.epoch)]

    def _start(self, step: Step, view: View, vicinity: Vicinity, radius: Tensor) -> Tensor:
        origin: Tensor = view.origin.detach()
        if self.options.start == "zero":
            return origin.clone()
        if self.options.start == "uniform":
            return vicinity.random_point(origin, radius, step.rng)
        noise = self.options.start_scale * normal_like(origin, step.rng)
        return vicinity.project(origin + noise, origin, radius)

    def _climb(self, step: Step, part: View, x: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """Return the gradient of the loss at x, and which samples are classified rightly there."""
        x = x.detach().requires_grad_()
        moved = part.replace(x=x)
        output = step.output(moved)
        if self.own_loss is None:
            losses = step.loss(moved, output, target)
        else:
            losses = self.own_loss(step, moved, output, target)
        return step.gradient(losses.sum(), x), step.score(part, output)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on when samples stop."""
        return Cost.unknown()


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (x.dim() - 1)).to(x.dtype)
