"""One perturbation for all samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Feed, View, stream, weights_digest

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity

    from . import UniversalOptions


def shrunk(delta: Tensor, radius: float, order: float) -> Tensor:
    """Return the nearest perturbation (1, …) of a norm of order 1, 2 or infinity of at most a radius."""
    if order == math.inf:
        return delta.clamp(-radius, radius)
    if order == 2:
        length = float(torch.linalg.vector_norm(delta))
        return delta * min(radius / max(length, 1e-12), 1.0)
    size = delta.abs().flatten()
    if float(size.sum()) <= radius:
        return delta
    falling = size.sort(descending=True).values
    excess = (falling.cumsum(0) - radius) / torch.arange(1, len(size) + 1, device=size.device)
    last = int((falling > excess).nonzero()[-1])
    return delta.sign() * (delta.abs() - excess[last]).clamp_min(0)


class Universal:
    """Add one perturbation to all samples, projected for each onto what is legal.

    It ascends the mean loss against the true labels over batches of training samples, a step along the
    steepest direction each: the projected stochastic ascent of Shafahi et al. 2020 (arXiv:1811.11304). An
    evaluation learns it once, from the training split of its task; training learns one for each batch, from
    that batch.

    Args:
        options: see UniversalOptions.
    """

    needs_sync = True

    def __init__(self, options: UniversalOptions) -> None:
        self.options = options
        self._known: tuple[nn.Module, str, float, Tensor, int] | None = None

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view with the perturbation."""
        radius, eps = step.radii(view, vicinity), float(vicinity.eps)
        with step.attack_mode():
            if step.evaluating:
                delta = self._learned(step, vicinity, eps)
            else:
                delta = torch.zeros_like(view.origin[:1])
                for number in range(self.options.epochs):
                    delta = self._moved(
                        step, view.at_origin(), vicinity, delta, eps, number, self.options.epochs
                    )
        share = radius / max(eps, 1e-12)
        x = view.origin + share.view(-1, *(1,) * (view.origin.dim() - 1)) * delta
        return view.replace(x=vicinity.project(x, view.origin, radius).detach())

    def _learned(self, step: Step, vicinity: Vicinity, eps: float) -> Tensor:
        """Return the perturbation of a model, learned once for all batches of an evaluation."""
        digest, known = weights_digest(step.model), self._known
        if known is None or known[0] is not step.model or known[1:3] != (digest, eps):
            before, delta = step.meter.forwards, None
            batches = list(step.task.batches("train", self._feed(step)))
            total, done = self.options.epochs * len(batches), 0
            for epoch in range(self.options.epochs):
                order = torch.randperm(len(batches), generator=stream(step.seed, "universal", epoch)).tolist()
                for place in order:
                    batch: Batch = batches[place]
                    part = View.of(batch, "clean")
                    delta = torch.zeros_like(part.x[:1]) if delta is None else delta
                    delta = self._moved(step, part, vicinity, delta, eps, done, total)
                    done += 1
            assert delta is not None
            known = self._known = (step.model, digest, eps, delta, step.meter.forwards - before)
        step.meter.prepared = known[4]
        return known[3]

    def _feed(self, step: Step) -> Feed:
        o = self.options
        return Feed(batch_size=o.batch_size, samples=o.samples, device=str(step.batch.index.device))

    def _moved(
        self, step: Step, view: View, vicinity: Vicinity, delta: Tensor, eps: float, done: int, total: int
    ) -> Tensor:
        """Return the perturbation after a step; steps fall linearly."""
        near = torch.full((len(view),), eps, device=view.index.device)
        free = delta.detach().clone().requires_grad_()
        # What the range of the inputs cuts off has no gradient, as in the sample itself.
        cut = vicinity.project((view.origin + free).detach(), view.origin, near)
        moved = view.origin + free
        moved = moved + (cut - moved).detach()
        placed = view.replace(x=moved)
        loss = step.loss(placed, step.output(placed), view.y).sum()
        gradient = step.gradient(loss, free)
        # The gradient of one perturbation counts for all samples that it was taken through.
        step.meter.backwards += len(view) - 1
        size = self.options.step_ratio * eps * (1 - done / total)
        return shrunk(delta + size * vicinity.steepest(gradient), eps, float(vicinity.norm or math.inf))

    def cost(self, target: Cost) -> Cost:
        """Count the passes over the batch in training."""
        return Cost(self.options.epochs, self.options.epochs)
