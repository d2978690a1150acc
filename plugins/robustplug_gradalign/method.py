"""GradAlign, Andriushchenko and Flammarion 2020 (arXiv:2007.02617)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robustplug.api import Batch, Cost, Progress, Step, View, Wrapper, cross_entropy, to_unit

from . import GradAlignOptions

_CONSTANT = Cost(1, 1)
# The gradient at the random point, backwards through it, and backwards through the output there.
_PENALTY = Cost(1, 3)


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 − cos of each pair of gradients, (N,), in [0, 2]; 0 where one of them is 0.

    Args:
        first, second: gradients (N, …) of any size.
    """
    a, b = to_unit(first).flatten(1), to_unit(second).flatten(1)
    known = (a.abs().amax(1) > 0) & (b.abs().amax(1) > 0)
    # Rows of zeros are replaced before the norm: its slope at 0 is not a number.
    a, b = (torch.where(known[:, None], rows, torch.ones_like(rows)) for rows in (a, b))
    cosine: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return 1 - cosine


class GradAlign(Wrapper[GradAlignOptions]):
    """The inner method's loss + λ · E[1 − cos(∇_x ℓ(x), ∇_x ℓ(x + η))], η uniform in the ball.

    ℓ is the cross entropy with the label. The gradient at x is a constant, as in the authors' code.
    """

    second_order = True

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the inner method's views, and random points of the ball, where gradients are compared."""
        views = self.inner.views(step, point)
        # Before the loss: leaving the attack mode writes buffers that the loss's graph would still need.
        with step.attack_mode("train"):
            here = self._slope(step, View.of(point), point.x, graph=False)
        start = View.of(point, "alignment", info={**point.info, "slope": here})
        x = self.vicinity.random_point(point.x, step.radii(start, self.vicinity), step.rng)
        return [*views, start.replace(x=x, penalty=self._misaligned, weight=self.options.strength)]

    def _misaligned(self, step: Step, view: View) -> Tensor:
        there = self._slope(step, view, view.x, graph=True)
        away = misalignment(view.info["slope"], there)
        step.log("alignment", self.options.strength * away)
        return away

    def _slope(self, step: Step, view: View, x: Tensor, graph: bool) -> Tensor:
        x = x.detach().requires_grad_()
        losses = cross_entropy(step.output(view.replace(x=x)), view.y)
        return step.gradient(losses.sum(), x, graph=graph)

    def around_loss(self, step: Step, views: Sequence[View]) -> contextlib.AbstractContextManager[None]:
        """Return the context of the inner method, for its own views."""
        return self.inner.around_loss(step, views[:-1])

    def after_backward(self, step: Step, views: Sequence[View]) -> None:
        """Act as the inner method does, on its own views."""
        self.inner.after_backward(step, views[:-1])

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        """Act as the inner method does, on its own views."""
        self.inner.after_step(step, views[:-1])

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return the quantities of the inner method, and the mean penalty."""
        return {**self.inner.mechanism(step, views[:-1]), "alignment": step.logged["alignment"][None]}

    def cost(self) -> Cost:
        """Count the inner method, and the penalty in each of its passes."""
        once, passes = _CONSTANT + _PENALTY, len(self.inner.passes(Progress()))
        return self.inner.cost() + (passes * once.forwards, passes * once.backwards)

    def loss_cost(self) -> Cost:
        """Count the inner method's loss and the penalty; the gradient at the sample is made before."""
        return self.inner.loss_cost() + _PENALTY
