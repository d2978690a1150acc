"""Auto-PGD where good steps change few values, as in an L1 ball: sparse steps, and radii that shrink."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import normal_like
from ..vicinities import per_sample
from .pgd import Ascent, Best, ascend

if TYPE_CHECKING:
    from ...api import SparseVicinity, Step, Vicinity, View

# Radii of the stages relative to the real one, and the share of the steps of each. The authors' 3, 2 and 1
# with shares of 0.3, 0.3 and 0.4 were weaker on the networks of benchmarks/threats.py.
STAGES = ((1.5, 0.5), (1.0, 0.5))
# The share of values to change at the start; then that of the best iterate, divided by LESS.
SHARE, LESS = 0.2, 1.5
# The step size is divided by SLOWER at a look back, down to the LEAST fraction of the radius, unless the best
# iterate changes less than SPARSER times as many values as it did.
SLOWER, LEAST, SPARSER = 1.5, 0.1, 0.95
# Steps between two looks back, as a fraction of all steps of a stage.
GAP = 0.04


def stages(steps: int) -> list[tuple[float, int]]:
    """Return factor of the radius and number of steps of each stage, `steps` + 1 passes in all.

    Each stage needs a pass for its start. With few steps there is one stage, at the real radius.
    """
    left = steps + 1 - len(STAGES)
    if left < 2 * len(STAGES):
        return [(1.0, steps)]
    counts = [math.ceil(share * left) for _, share in STAGES[:-1]]
    return [(factor, n) for (factor, _), n in zip(STAGES, [*counts, left - sum(counts)], strict=True)]


@dataclass
class _Track:
    """The state of a stage; every field has one row per sample."""

    x: Tensor
    gradient: Tensor
    size: Tensor
    share: Tensor
    changed: Tensor
    best_x: Tensor
    best_gradient: Tensor
    best_loss: Tensor

    def rows(self, keep: Tensor) -> _Track:
        """Return the state of the chosen samples."""
        return _Track(**{name: value[keep] for name, value in vars(self).items()})

    def note(self, gradient: Tensor, loss: Tensor) -> None:
        """Record the gradient and the loss at the new iterate."""
        self.gradient = gradient
        better = loss > self.best_loss
        rows = per_sample(better, gradient)
        self.best_x = torch.where(rows, self.x, self.best_x)
        self.best_gradient = torch.where(rows, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def look_back(self, origin: Tensor, radius: Tensor) -> None:
        """Adapt the number of values to change, and the step size, to the best iterate."""
        changed = shares(self.best_x, origin)
        sparser = changed < SPARSER * self.changed
        slower = (self.size / SLOWER).maximum(LEAST * radius)
        self.size = torch.where(sparser, radius, slower)
        self.share, self.changed = changed / LESS, changed
        rows = per_sample(sparser, self.x)
        self.x = torch.where(rows, self.best_x, self.x)
        self.gradient = torch.where(rows, self.best_gradient, self.gradient)


def shares(x: Tensor, origin: Tensor) -> Tensor:
    """Return the share of the values that differ, (N,)."""
    return (x != origin).flatten(1).float().mean(1)


def sparse_apgd(
    step: Step,
    view: View,
    vicinity: Any,
    losses: Callable[[View, Tensor], Tensor],
    radius: Tensor,
    best: Best,
    rows: Tensor,
    steps: int,
) -> None:
    """Run APGD with sparse steps once, from a normal start, and record its results in `best`.

    Croce & Hein 2021 (arXiv:2103.01208), as in the authors' code but for the radii of the stages: here 1.5
    times the radius, then the radius itself. The first iterate of a stage is the best of the one before,
    projected. A step changes the largest values of the gradient; how many follows from the best iterate.
    Only iterates of the last stage count. Here the passes for the starts of the stages are among the
    `steps` + 1.

    Args:
        step, view, vicinity: step, view and vicinity, a `SparseVicinity`, to attack.
        losses: loss to maximise, (view, logits) -> (N,).
        radius: radius of each sample, (N,); the first step size.
        best: best iterates of all samples.
        rows: positions of this view's samples in `best`.
        steps: number of steps.
    """
    sparse: SparseVicinity = vicinity
    whole: Vicinity = vicinity

    def begin(part: View, x: Tensor) -> tuple[Tensor, ...]:
        ascent = Ascent(lambda moved, output, _: losses(moved, output), None)
        gradient, output, loss = ascend(step, part, ascent, x)
        return gradient, loss, ~step.score(part, output)

    def climb(part: View, near: Tensor, state: dict[str, Tensor]) -> tuple[Any, ...]:
        track = _Track(**state)
        if look:
            track.look_back(part.origin, near)
        moved = track.x + per_sample(track.size, track.x) * sparse.sparse(track.gradient, track.share)
        track.x = whole.project(moved, part.origin, near)
        gradient, loss, fooled = begin(part, track.x)
        track.note(gradient, loss)
        return vars(track), loss, fooled

    plan, look = stages(steps), False
    at = view.origin.detach() + normal_like(view.origin, step.rng)
    for stage, (factor, count) in enumerate(plan):
        near, last = factor * radius, stage == len(plan) - 1
        x = whole.project(at, view.origin, near).detach()
        gradient, loss, fooled = step.iterate(begin, view, x)
        changed = shares(x, view.origin)
        share = torch.full_like(changed, SHARE) if len(plan) == 1 else changed / LESS
        track = _Track(x, gradient, near, share, changed, x, gradient, loss)
        gap = max(int(GAP * count), 1)
        for number in range(count + 1):
            if number:
                look = number > 1 and (number - 1) % gap == 0
                state, loss, fooled = step.iterate(climb, view, near, vars(track))
                track = _Track(**state)
            # Positions, not a mask: each selection by a mask would wait for the device.
            left = (~fooled).nonzero()[:, 0] if last and step.evaluating else rows
            success = len(left) < len(rows)
            if last and (success or not step.evaluating):
                best.update(rows, track.x, loss, fooled)
            if success:
                view, rows, near, track = view.rows(left), rows[left], near[left], track.rows(left)
                if not len(rows):
                    return
        at = track.best_x
