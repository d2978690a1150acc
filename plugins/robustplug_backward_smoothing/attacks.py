"""Backward Smoothing, Chen et al. 2020 (arXiv:2010.01278), and N-FGSM, de Jorge et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustplug.api import Batch, Cost, Method, Step, Vicinity, View, kl_divergence, uniform_like

from . import BackwardSmoothingOptions, NFgsmOptions, NFgsmTrainingOptions


def _sized(size: Tensor, x: Tensor) -> Tensor:
    return size.view(-1, *(1,) * (x.dim() - 1))


def smoothing_start(
    step: Step, view: View, vicinity: Vicinity, radius: Tensor, size: Tensor, gamma: float
) -> Tensor:
    """Return ξ* + x: one step that descends KL(s(f(x) + γψ) ‖ s(f(x + ξ))) from ξ = 0, Eq. (4.4).

    ψ ~ U(−1, 1) for each logit. One forward pass serves for f(x) and for the gradient.

    Args:
        step, view, vicinity: the arguments of an attack, in attack mode.
        radius, size: radius and step size of each sample, (N,).
        gamma: γ.
    """
    x = view.origin.detach().clone().requires_grad_()
    # A label map that needs f(x), such as TRADES', need not run the model again.
    with step.offering(x, view.origin):
        logits = step.output(view.replace(x=x)).float()
    fixed = logits.detach()
    target = (fixed + gamma * uniform_like(fixed, step.rng)).softmax(1)
    gradient = step.gradient(kl_divergence(logits, target).sum(), x)
    moved = x.detach() - _sized(size, x) * vicinity.steepest(gradient)
    return vicinity.project(moved, view.origin, radius)


def ascend(
    step: Step, view: View, vicinity: Vicinity, x: Tensor, radius: Tensor, size: Tensor, steps: int
) -> Tensor:
    """Ascend the method's objective from x, with projected steps: Eq. (4.5) with TRADES' labels."""
    if not steps:
        return x
    with torch.no_grad():
        target = step.target(view)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        moved = view.replace(x=x)
        gradient = step.gradient(step.loss(moved, step.output(moved), target).sum(), x)
        x = vicinity.project(x.detach() + _sized(size, x) * vicinity.steepest(gradient), view.origin, radius)
    return x


class BackwardSmoothing:
    """Step towards randomly moved logits, then ascend: Algorithm 1, lines 5 and 6.

    Args:
        options: see BackwardSmoothingOptions.
    """

    def __init__(self, options: BackwardSmoothingOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the attacked view."""
        o = self.options
        radius = step.radii(view, vicinity)
        size = o.step_ratio * radius
        with step.attack_mode(o.batchnorm):
            x = smoothing_start(step, view, vicinity, radius, size, o.gamma)
            x = ascend(step, view, vicinity, x, radius, size, o.steps)
        return view.replace(x=x.detach())

    def cost(self, target: Cost) -> Cost:
        """Count the start, the steps, and the target, whose clean forward is that of the start."""
        own = Cost(1 + self.options.steps, 1 + self.options.steps)
        if not self.options.steps:
            return own
        return own + (max(0, target.forwards - 1), target.backwards)


class NFgsm:
    """x + η + α·ε·direction(∇ℓ(x + η)) with η ~ U(−k·ε, k·ε), not projected onto the ball of ε.

    The radius of a sample covers noise and step: ε = radius / (k + α). Points are only clipped to the valid
    range.

    Args:
        options: see NFgsmOptions.
    """

    def __init__(self, options: NFgsmOptions) -> None:
        self.options = options

    @property
    def reach(self) -> float:
        """Return k + α, the radius in units of ε."""
        return self.options.noise + self.options.step

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the attacked view."""
        o = self.options
        radius = step.radii(view, vicinity)
        x = vicinity.random_point(view.origin, radius * (o.noise / self.reach), step.rng)
        with step.attack_mode(o.batchnorm):
            x = ascend(step, view, vicinity, x, radius, radius * (o.step / self.reach), 1)
        return view.replace(x=x.detach())

    def cost(self, target: Cost) -> Cost:
        """Count one forward, one backward, and the target."""
        return target + (1, 1)


class NFgsmTraining(Method[NFgsmTrainingOptions]):
    """Train on noise plus a step, which together may leave the ball of ε in the threat model."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the attacked view, with the radius that the attack may use."""
        reach = self.perturbation.reach if isinstance(self.perturbation, NFgsm) else 1.0
        radius = torch.full((len(point),), reach * float(self.vicinity.eps), device=point.index.device)
        return [self.perturbation(step, View.of(point, "adv", radius=radius), self.vicinity)]
