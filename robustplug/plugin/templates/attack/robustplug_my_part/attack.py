"""The computation of my-part."""

from __future__ import annotations

from typing import Any

import torch
from robustplug.api import Cost, Step, Vicinity, View
from torch import Tensor

from . import MyPartOptions


class MyPart:
    """Ascend the objective of the method, or in an evaluation its loss, from a random point of the vicinity.

    The step of number n has the size ε/n, for the radius ε of each sample.

    Args:
        options: see MyPartOptions.
    """

    def __init__(self, options: MyPartOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the last point, within the vicinity."""
        radius = step.radii(view, vicinity)

        def climb(part: View, x: Tensor, target: Any, near: Tensor, size: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            moved = part.replace(x=x)
            losses = step.loss(moved, step.output(moved), target)
            uphill = vicinity.steepest(step.gradient(losses.sum(), x))
            size = size.view(-1, *(1,) * (x.dim() - 1))
            return vicinity.project(x.detach() + size * uphill, part.origin, near)

        with step.attack_mode():
            with torch.no_grad():
                target = step.target(view)
            x = vicinity.random_point(view.origin, radius, step.rng)
            for number in range(1, self.options.steps + 1):
                x = step.iterate(climb, view, x, target, radius, radius / number)
        return view.replace(x=x.detach())

    def cost(self, target: Cost) -> Cost:
        """Count a forward and a backward for each step, and the target."""
        return target + (self.options.steps, self.options.steps)
