"""Auto-PGD: projected gradient ascent with step sizes that adapt to the progress of each sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Cost, Refused, SparseVicinity, cross_entropy, dlr, normal_like, uniform_like
from ..vicinities import per_sample
from .pgd import Ascent, Best, ascend, bound, direction
from .sparse_apgd import sparse_apgd

if TYPE_CHECKING:
    from ...api import Loss, Step, Vicinity, View
    from . import ApgdOnLossOptions, ApgdOptions

MOMENTUM = 0.75
# A step size is kept if more than this fraction of the steps since the last checkpoint raised the loss.
RHO = 0.75


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which APGD adapts its step sizes.

    The gaps are 22 % of the steps, then 3 % less each time, but at least 6 %. Croce & Hein 2020
    (arXiv:2003.01690 §3.1), rounded as in the reference code.
    """
    gap, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    found, at = [], 0
    while at + gap <= steps:
        at += gap
        found.append(at)
        gap = max(gap - less, least)
    return found


def edge_point(view: View, vicinity: Vicinity, radius: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a random start on the surface of each ball, then project it; in another set, any random point.

    L∞: x + ε·t/‖t‖∞ with t uniform; L2: x + ε·t/‖t‖₂ with t normal.
    """
    if vicinity.norm is None:
        return vicinity.random_point(view.origin, radius, rng)
    noise = normal_like(view.origin, rng) if vicinity.norm == 2 else uniform_like(view.origin, rng)
    order = 2 if vicinity.norm == 2 else torch.inf
    length = torch.linalg.vector_norm(noise.flatten(1), ord=order, dim=1).clamp_min(1e-12)
    x = view.origin + noise * per_sample(radius / length, noise)
    return vicinity.project(x, view.origin, radius)


@dataclass
class _Track:
    """The state of APGD; every field has one row per sample."""

    x: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    size: Tensor
    best_x: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    rises: Tensor
    checked_loss: Tensor
    reduced: Tensor

    @classmethod
    def start(cls, x: Tensor, gradient: Tensor, loss: Tensor, size: Tensor) -> _Track:
        """Return the state after the first evaluation."""
        return cls(
            x=x,
            before=x,
            gradient=gradient,
            loss=loss,
            size=size,
            best_x=x.clone(),
            best_gradient=gradient.clone(),
            best_loss=loss.clone(),
            rises=torch.zeros_like(loss),
            checked_loss=loss.clone(),
            reduced=torch.ones_like(loss, dtype=torch.bool),
        )

    def rows(self, keep: Tensor) -> _Track:
        """Return the state of the chosen samples."""
        return _Track(**{name: value[keep] for name, value in vars(self).items()})

    def move(self, origin: Tensor, vicinity: Vicinity, radius: Tensor, first: bool) -> None:
        """Take a step along the steepest direction, with momentum."""
        size, weight = per_sample(self.size, self.x), 1.0 if first else MOMENTUM
        ahead = direction(vicinity, self.gradient, 2)  # one of several steps
        z = vicinity.project(self.x + size * ahead, origin, radius)
        moved = self.x + weight * (z - self.x) + (1 - weight) * (self.x - self.before)
        self.before, self.x = self.x, vicinity.project(moved, origin, radius)

    def note(self, gradient: Tensor, loss: Tensor) -> None:
        """Record the gradient and the loss at the new iterate."""
        self.rises = self.rises + (loss > self.loss)
        self.gradient, self.loss = gradient, loss
        better = loss > self.best_loss
        rows = per_sample(better, gradient)
        self.best_x = torch.where(rows, self.x, self.best_x)
        self.best_gradient = torch.where(rows, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def look_back(self, gap: Tensor) -> None:
        """Halve step sizes that were too large; those samples continue from their best iterate.

        Args:
            gap: number of steps since the last look back, a scalar.
        """
        too_few = self.rises <= RHO * gap
        stuck = ~self.reduced & (self.checked_loss >= self.best_loss)
        halve = too_few | stuck
        self.size = torch.where(halve, self.size / 2, self.size)
        rows = per_sample(halve, self.x)
        self.x = torch.where(rows, self.best_x, self.x)
        self.gradient = torch.where(rows, self.best_gradient, self.gradient)
        self.reduced, self.checked_loss = halve, self.best_loss.clone()
        self.rises = torch.zeros_like(self.rises)


def apgd(
    step: Step,
    view: View,
    vicinity: Vicinity,
    losses: Callable[[View, Tensor], Tensor],
    radius: Tensor,
    best: Best,
    rows: Tensor,
    steps: int,
) -> None:
    """Run APGD once and record its results in `best`.

    Croce & Hein 2020 (arXiv:2003.01690), Algorithm 1. The reference code differs: it compares the loss
    after the first step with 0 instead of with the loss at the start. Costs `steps` + 1 forwards and
    backwards, including one for the start. During evaluation, a sample leaves the batch at its first
    success. This does not affect the others, because each sample has its own state. In a vicinity with
    sparse steps, such as an L1 ball, it is `sparse_apgd`.

    Args:
        step, view, vicinity: step, view and vicinity to attack; the view contains the samples of `rows`.
        losses: loss to maximise, (view, logits) -> (N,).
        radius: radius of each sample, (N,); the first step size is twice as large.
        best: best iterates of all samples.
        rows: positions of this view's samples in `best`.
        steps: number of steps.
    """
    if isinstance(vicinity, SparseVicinity):
        sparse_apgd(step, view, vicinity, losses, radius, best, rows, steps)
        return
    first, looks, last = True, checkpoints(steps), 0

    def begin(part: View, x: Tensor) -> tuple[Tensor, ...]:
        ascent = Ascent(lambda moved, output, _: losses(moved, output), None)
        gradient, output, loss = ascend(step, part, ascent, x)
        return gradient, loss, ~step.score(part, output)

    def climb(part: View, near: Tensor, state: dict[str, Tensor], gap: Tensor | None) -> tuple[Any, ...]:
        track = _Track(**state)
        if gap is not None:
            track.look_back(gap)
        track.move(part.origin, vicinity, near, first)
        gradient, loss, fooled = begin(part, track.x)
        track.note(gradient, loss)
        return vars(track), loss, fooled

    x = edge_point(view, vicinity, radius, step.rng).detach()
    gradient, loss, fooled = step.iterate(begin, view, x)
    track = _Track.start(x, gradient, loss, 2 * radius)
    for number in range(steps + 1):
        if number:
            first, gap = number == 1, None
            if number - 1 in looks:
                # A tensor, as one graph of the iteration shall serve all gaps.
                gap, last = radius.new_full((), number - 1 - last), number - 1
            state, loss, fooled = step.iterate(climb, view, radius, vars(track), gap)
            track = _Track(**state)
        # Positions, not a mask: each selection by a mask would wait for the device.
        left = (~fooled).nonzero()[:, 0] if step.evaluating else rows
        success = len(left) < len(rows)
        if success or not step.evaluating:
            best.update(rows, track.x, loss, fooled)
        if success:
            view, rows, radius, track = view.rows(left), rows[left], radius[left], track.rows(left)
            if not len(rows):
                return


class Apgd:
    """Auto-PGD on a fixed loss, regardless of the method's own objective.

    Args:
        options: see ApgdOptions.
        losses: loss to maximise, (logits, labels) -> (N,).
    """

    def __init__(
        self, options: ApgdOptions, losses: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    ) -> None:
        self.options, self.losses = options, losses

    def objective(self, step: Step) -> Callable[[View, Any], Tensor]:
        """Return the loss to maximise, (view, output) -> (N,).

        Raises:
            Refused: the task has no classes.
        """
        if step.task.info.classes is None:
            raise Refused("it ascends a loss of classes, and the task has none: use apgd")
        return lambda moved, output: self.losses(output, moved.y)

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x.

        Raises:
            Refused: the inputs have no gradient, or the model has too few classes for the loss.
        """
        radius, losses = step.radii(view, vicinity), self.objective(step)
        best = Best.at(view)
        with step.attack_mode():
            for _ in range(self.options.restarts):
                rows = best.undecided(step.evaluating)
                if not len(rows):
                    break
                part = view.rows(rows)
                apgd(step, part, vicinity, losses, radius[rows], best, rows, self.options.steps)
        return view.replace(x=best.x)

    def cost(self, target: Cost) -> Cost:
        """Count one forward and one backward for each step and for each start."""
        passes = self.options.restarts * (self.options.steps + 1)
        return Cost(passes, passes)


class ApgdOnLoss(Apgd):
    """Auto-PGD on the loss of the evaluation or the method, or on another one, against the true labels.

    Args:
        options: see ApgdOnLossOptions.
        loss: the loss; None for that of the evaluation or the method.
    """

    def __init__(self, options: ApgdOnLossOptions, *, loss: Loss | None) -> None:
        super().__init__(options)
        self.own_loss = loss

    def objective(self, step: Step) -> Callable[[View, Any], Tensor]:
        """Return the loss to maximise, (view, output) -> (N,)."""
        loss = step.loss if self.own_loss is None else bound(self.own_loss, step)
        return lambda moved, output: loss(moved, output, moved.y)


def apgd_dlr(options: ApgdOptions) -> Apgd:
    """Build Auto-PGD on the difference of logits ratio, which needs at least three classes."""
    return Apgd(options, dlr)
