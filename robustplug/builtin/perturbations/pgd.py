"""Projected gradient ascent: one loop for training, for evaluation, and for every norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Cost, ProportionalVicinity, Refused, normal_like, take
from ..vicinities import per_sample

if TYPE_CHECKING:
    from ...api import Loss, Step, Vicinity, View
    from . import FgsmOptions, PgdOptions, Start


@dataclass
class Ascent:
    """The objective that an attack ascends.

    Attributes:
        losses: loss to maximise, (view, output, target) -> (N,).
        target: targets of the view, in the order of its rows.
    """

    losses: Callable[[View, Any, Any], Tensor]
    target: Any


def starting_point(
    step: Step, view: View, vicinity: Vicinity, radius: Tensor, start: Start, scale: float
) -> Tensor:
    """Return the first iterate: the origin, a random point of the ball, or origin + scale·N(0, 1)."""
    if start == "zero":
        x: Tensor = view.origin.detach().clone()
        return x
    if start == "uniform":
        return vicinity.random_point(view.origin, radius, step.rng)
    noise = scale * normal_like(view.origin, step.rng)
    return vicinity.project(view.origin + noise, view.origin, radius)


def ascend(step: Step, view: View, ascent: Ascent, x: Tensor) -> tuple[Tensor, Any, Tensor]:
    """Return the gradient of the losses at x, the outputs there, and the detached losses.

    Raises:
        Refused: the inputs have no gradient, as texts have none.
    """
    if not x.is_floating_point():
        raise Refused("the inputs are no real numbers and have no gradient: use an attack made for the task")
    x = x.detach().requires_grad_()
    moved = view.replace(x=x)
    output = step.output(moved)
    losses = ascent.losses(moved, output, ascent.target)
    gradient, losses = step.gradient(losses.sum(), x), losses.detach()
    # A loss that is no number is none: it must not outlast later ones.
    return gradient, output, torch.where(losses.isnan(), -torch.inf, losses)


def direction(vicinity: Vicinity, gradient: Tensor, steps: int) -> Tensor:
    """Return the direction of one of several steps, or of a single one.

    A single step takes the steepest direction. Several that each change one value alone, as the steepest ones
    of an L1 ball do, would push the same value against the end of its range: they follow the gradient, with
    which the projection onto the set always ascends a linear function.
    """
    if steps > 1 and isinstance(vicinity, ProportionalVicinity):
        return vicinity.proportional(gradient)
    return vicinity.steepest(gradient)


def pgd(
    step: Step,
    view: View,
    vicinity: Vicinity,
    ascent: Ascent,
    x: Tensor,
    radius: Tensor,
    size: Tensor,
    steps: int,
) -> Tensor:
    """Ascend for `steps` steps and return the last iterate.

    Madry et al. 2018: x ← Π(x + size · direction of ∇ℓ). Costs `steps` forwards and backwards.

    Args:
        step, view, vicinity, ascent: step, view and vicinity to attack, and the objective.
        x: first iterate (N, …).
        radius, size: radius and step size of each sample, (N,).
        steps: number of steps.
    """
    losses = ascent.losses

    def climb(part: View, x: Tensor, goal: Any, near: Tensor, size: Tensor) -> Tensor:
        gradient, _, _ = ascend(step, part, Ascent(losses, goal), x)
        moved = x.detach() + per_sample(size, x) * direction(vicinity, gradient, steps)
        return vicinity.project(moved, part.origin, near)

    for _ in range(steps):
        x = step.iterate(climb, view, x, ascent.target, radius, size)
    return x


@dataclass
class Best:
    """Keep the best iterate of each sample, over steps and restarts.

    A point that fools the model beats one that does not; otherwise the higher loss wins.
    """

    x: Tensor
    loss: Tensor
    fooled: Tensor

    @classmethod
    def at(cls, view: View) -> Best:
        """Return the origins; any iterate replaces them."""
        device = view.origin.device
        loss = torch.full((len(view),), -torch.inf, device=device)
        fooled = torch.zeros(len(view), dtype=torch.bool, device=device)
        return cls(view.origin.detach().clone(), loss, fooled)

    def undecided(self, evaluating: bool) -> Tensor:
        """Return the positions of the samples to attack: during evaluation, those not yet fooled."""
        if evaluating:
            return (~self.fooled).nonzero()[:, 0]
        return torch.arange(len(self.fooled), device=self.fooled.device)

    def update(self, rows: Tensor, x: Tensor, loss: Tensor, fooled: Tensor) -> None:
        """Update the best iterates of some rows (ascending int64 positions) with new iterates."""
        everyone = len(rows) == len(self.loss)
        best_x, best_loss, was_fooled = (
            value if everyone else value[rows] for value in (self.x, self.loss, self.fooled)
        )
        better = (fooled & ~was_fooled) | ((fooled == was_fooled) & (loss > best_loss))
        better |= best_loss.isneginf()
        best_x = torch.where(per_sample(better, x), x.to(best_x.dtype), best_x)
        best_loss = torch.where(better, loss.to(best_loss.dtype), best_loss)
        was_fooled = torch.where(better, fooled, was_fooled)
        if everyone:
            self.x, self.loss, self.fooled = best_x, best_loss, was_fooled
        else:
            self.x[rows], self.loss[rows], self.fooled[rows] = best_x, best_loss, was_fooled


def best_of_pgd(
    step: Step,
    view: View,
    vicinity: Vicinity,
    ascent: Ascent,
    starts: Callable[[View, Tensor], Tensor],
    radius: Tensor,
    size: Tensor,
    steps: int,
    restarts: int,
) -> Tensor:
    """Ascend from several starts and return the best iterate of each sample.

    During evaluation only success counts. A sample leaves the batch at its first success, so later steps
    and restarts process only the samples that are not yet fooled. A sample that withstands the attack
    stays at its origin. A restart costs at most `steps` + 1 forwards and `steps` backwards: the last
    iterate needs its own forward.

    Args:
        step, view, vicinity, ascent, radius, size, steps: as for `pgd`.
        starts: function from (view, radius) to a first iterate.
        restarts: number of starts.
    """
    loss = ascent.losses

    def climb(part: View, x: Tensor, goal: Any, near: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        gradient, output, losses = ascend(step, part, Ascent(loss, goal), x)
        moved = x.detach() + per_sample(size, x) * direction(vicinity, gradient, steps)
        return losses, ~step.score(part, output), vicinity.project(moved, part.origin, near)

    def look(part: View, x: Tensor, goal: Any) -> tuple[Tensor, ...]:
        with torch.no_grad():
            moved = part.replace(x=x.detach())
            output = step.output(moved)
            return loss(moved, output, goal), ~step.score(part, output)

    best = Best.at(view)
    for _ in range(restarts):
        rows = best.undecided(step.evaluating)
        if not len(rows):
            break
        part, near, alpha, goal = view.rows(rows), radius[rows], size[rows], take(ascent.target, rows)
        after = starts(part, near)
        for number in range(steps + 1):
            x = after
            if number < steps:
                losses, fooled, after = step.iterate(climb, part, x, goal, near, alpha)
            else:
                losses, fooled = step.iterate(look, part, x, goal)
            # Positions, not a mask: each selection by a mask would wait for the device.
            left = (~fooled).nonzero()[:, 0] if step.evaluating else rows
            success = len(left) < len(rows)
            if success or not step.evaluating:
                best.update(rows, x.detach(), losses, fooled)
            if number == steps:
                break
            if success:
                rows, near, alpha, goal = rows[left], near[left], alpha[left], take(goal, left)
                part, after = part.rows(left), after[left]
                if not len(rows):
                    break
    return best.x


def step_sizes(radius: Tensor, steps: int, size: float | None, ratio: float | None) -> Tensor:
    """Return step sizes (N,): the larger of `size` and `ratio` · radius, by default 2.5 · radius / steps."""
    if ratio is None:
        return 2.5 * radius / steps if size is None else torch.full_like(radius, size)
    return (ratio * radius).clamp_min(size or 0.0)


class Pgd:
    """Projected gradient ascent on the method's own objective, or on a separate loss.

    Args:
        options: see PgdOptions.
        loss: loss against the true labels that replaces the method's objective.
    """

    def __init__(self, options: PgdOptions, *, loss: Loss | None) -> None:
        self.options, self.own_loss = options, loss

    @property
    def _tracks(self) -> bool:
        return self.options.keep == "best" or self.options.restarts > 1

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x."""
        o = self.options
        radius = step.radii(view, vicinity)
        size = step_sizes(radius, o.steps, o.step_size, o.step_ratio)
        with step.attack_mode(o.batchnorm):
            ascent = self._ascent(step, view)

            def start(part: View, near: Tensor) -> Tensor:
                return starting_point(step, part, vicinity, near, o.start, o.start_scale)

            if self._tracks or step.evaluating:
                x = best_of_pgd(step, view, vicinity, ascent, start, radius, size, o.steps, o.restarts)
            else:
                x = pgd(step, view, vicinity, ascent, start(view, radius), radius, size, o.steps)
        return view.replace(x=x.detach())

    def _ascent(self, step: Step, view: View) -> Ascent:
        loss = step.loss if self.own_loss is None else bound(self.own_loss, step)
        if self.options.target != "none":
            labels = target_classes(step, view, self.options.target)
            return Ascent(lambda moved, out, goal: -loss(moved.replace(y=goal), out, goal), labels)
        with torch.no_grad():
            target = view.y if self.own_loss is not None else step.target(view)
        return Ascent(loss, target)

    def cost(self, target: Cost) -> Cost:
        """Count `restarts` times `steps` passes, and a forward for the last iterate if it is scored."""
        o = self.options
        own = Cost(o.restarts * (o.steps + self._tracks), o.restarts * o.steps)
        if o.target in ("runner-up", "least-likely"):
            return own + (1, 0)
        return own if o.target == "random" or self.own_loss is not None else own + target


def bound(loss: Loss, step: Step) -> Callable[[View, Any, Any], Tensor]:
    """Return a loss component as a function (view, output, target) -> (N,)."""
    return lambda view, output, target: loss(step, view, output, target)


def target_classes(step: Step, view: View, rule: str) -> Tensor:
    """Choose a wrong class for each sample, int64 (N,).

    Args:
        step: step that provides the clean outputs and the generator.
        view: view with labels int64 (N,) or rows (N, K).
        rule: "random", "runner-up" (the most likely wrong class) or "least-likely".

    Raises:
        Refused: the task has no classes.
    """
    classes = step.task.info.classes
    if classes is None:
        raise Refused("a targeted attack needs classes, and the task has none")
    labels: Tensor = view.y if view.y.dim() == 1 else view.y.argmax(1)
    if rule == "random":
        shift = torch.randint(1, classes, labels.shape, generator=step.rng, device=labels.device)
        return (labels + shift) % classes
    with torch.no_grad():
        logits: Tensor = step.output(view.replace(x=view.origin)).float()
    away = -torch.inf if rule == "runner-up" else torch.inf
    logits = logits.scatter(1, labels[:, None], away)
    return logits.argmax(1) if rule == "runner-up" else logits.argmin(1)


class Fgsm:
    """One step of `step_ratio` times the radius along the steepest direction.

    Goodfellow et al. 2015 start from the sample itself, Wong et al. 2020 (Fast AT) from a uniform start
    with ratio 1.25.

    Args:
        options: see FgsmOptions.
        loss: loss against the true labels that replaces the method's objective.
    """

    def __init__(self, options: FgsmOptions, *, loss: Loss | None) -> None:
        self.options, self.own_loss = options, loss

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbed x."""
        o = self.options
        radius = step.radii(view, vicinity)
        with step.attack_mode(o.batchnorm):
            with torch.no_grad():
                target = view.y if self.own_loss is not None else step.target(view)
            loss = step.loss if self.own_loss is None else bound(self.own_loss, step)
            x = starting_point(step, view, vicinity, radius, o.start, 0.0)
            x = pgd(step, view, vicinity, Ascent(loss, target), x, radius, o.step_ratio * radius, 1)
        return view.replace(x=x.detach())

    def cost(self, target: Cost) -> Cost:
        """Count one forward and one backward, plus the cost of the target."""
        return Cost(1, 1) if self.own_loss is not None else target + (1, 1)
