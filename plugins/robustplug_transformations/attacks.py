"""Attacks that choose the parameters of images, such as angles."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Batch, Cost, Refused, take

from .sets import Transformed

if TYPE_CHECKING:
    from robustplug.api import Perturbation, Step, Vicinity, View

    from . import GridOptions, InParametersOptions, WorstOfKOptions

# Key of a view's info: the images whose parameters are attacked.
_IMAGES = "images of the parameters"


class Box:
    """The parameters of a set of images, in multiples of their ranges: a box around 0.

    Args:
        images: the set of images.
    """

    norm: float | None = None

    def __init__(self, images: Transformed) -> None:
        self.images, self.eps = images, images.eps

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Clamp parameters (N, P) to their ranges."""
        low, high = self.images.ends(radius)
        return x.clamp(low, high)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether its parameters are in their ranges: bool (N,)."""
        low, high = self.images.ends(radius)
        return ((x >= low) & (x <= high)).all(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the signs."""
        return gradient.nan_to_num(0.0, 0.0, 0.0).sign()

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw parameters uniformly from their ranges."""
        return self.images.draw(radius, rng)


class _Slots:
    """The slots of a method, for views of parameters.

    Args:
        method: the method's slots.
        images: the set of images.
    """

    def __init__(self, method: Any, images: Transformed) -> None:
        self.method, self.images = method, images
        self.state = getattr(method, "state", None)

    def shown(self, view: View) -> View:
        """Return the view of the images."""
        origin = view.info[_IMAGES]
        return view.replace(x=self.images.render(origin, view.x), origin=origin)

    def label_map(self, step: Step, view: View) -> Any:
        """Return the method's targets for the images."""
        return self.method.label_map(step, self.shown(view))

    def output_map(self, step: Step, view: View) -> Any:
        """Return the method's outputs for the images."""
        return self.method.output_map(step, self.shown(view))

    def loss(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the method's losses."""
        result: Tensor = self.method.loss(step, view, output, target)
        return result


def _set_of(vicinity: Vicinity) -> Transformed:
    """Return the set of images.

    Raises:
        Refused: the threat model is none.
    """
    if not isinstance(vicinity, Transformed):
        raise Refused("it chooses parameters of images: use vicinity spatial, colour, blur or jpeg")
    return vicinity


def _shown(step: Step, view: View, images: Transformed, theta: Tensor) -> View:
    """Return the view of the images, and report the size of their parameters."""
    for number, (name, size) in enumerate(zip(images.names, images.ranges, strict=True)):
        step.report(name, theta[:, number].abs() * size)
    return view.replace(x=images.of(view.origin, theta))


class InParameters:
    """Another attack on the parameters, from the model's outputs for their images.

    Engstrom et al. 2019 call it the first-order method, for PGD over angles and shifts.

    Args:
        options: see InParametersOptions.
        attack: the attack.
    """

    needs_sync = True

    def __init__(self, options: InParametersOptions, *, attack: Perturbation) -> None:
        self.attack = attack

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the images of the parameters that the attack finds."""
        images = _set_of(vicinity)
        radius = step.radii(view, vicinity)
        slots = _Slots(step.method, images)
        inner = dataclasses.replace(step, method=slots, iterations=None)
        still = torch.zeros(len(view), len(images.names), device=view.origin.device)
        info = {**view.info, _IMAGES: view.origin.detach()}
        found = self.attack(inner, view.replace(x=still, origin=still, radius=radius, info=info), Box(images))
        return _shown(step, view, images, found.x)

    def cost(self, target: Cost) -> Cost:
        """Return the cost of the attack."""
        return self.attack.cost(target)


def _worst(step: Step, view: View, images: Transformed, tried: Iterable[Tensor]) -> Tensor:
    """Return for each sample the parameters (N, P) of the highest loss among some, successful ones first."""
    best = torch.zeros(len(view), len(images.names), device=view.origin.device)
    highest = torch.full((len(view),), -torch.inf, device=best.device)
    rows = torch.arange(len(view), device=best.device)
    with step.attack_mode(), torch.no_grad():
        target = step.target(view)
        for theta in tried:
            part = view.rows(rows)
            moved = part.replace(x=images.render(part.origin, theta[rows]))
            output = step.output(moved)
            loss = step.loss(moved, output, take(target, rows))
            wrong = ~step.score(moved, output)
            better = (loss > highest[rows]) | (wrong if step.evaluating else torch.zeros_like(wrong))
            best[rows] = torch.where(better[:, None], theta[rows], best[rows])
            highest[rows] = torch.where(better, loss.to(highest.dtype), highest[rows])
            rows = rows[~wrong] if step.evaluating else rows
            if not len(rows):
                break
    return best


class Grid:
    """The worst of a grid of parameters, and of none; samples leave at their first success in an evaluation.

    Args:
        options: see GridOptions.
    """

    needs_sync = True

    def __init__(self, options: GridOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the worst images."""
        images, radius = _set_of(vicinity), step.radii(view, vicinity)
        tried = images.grid(radius, self.options.points)
        if not step.evaluating:
            # A grid of an even number of values leaves it out; an evaluation has seen it.
            still = torch.zeros(len(view), len(images.names), device=view.origin.device)
            tried = itertools.chain([still], tried)
        return _shown(step, view, images, _worst(step, view, images, tried))

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: the number of parameters is that of the threat model."""
        return Cost.unknown()


class WorstOfK:
    """The worst of some random parameters; samples leave at their first success in an evaluation.

    Args:
        options: see WorstOfKOptions.
    """

    needs_sync = True

    def __init__(self, options: WorstOfKOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the worst images."""
        images, radius = _set_of(vicinity), step.radii(view, vicinity)
        tried = (images.draw(radius, step.rng) for _ in range(self.options.k))
        return _shown(step, view, images, _worst(step, view, images, tried))

    def cost(self, target: Cost) -> Cost:
        """Count a forward for each of the parameters, and the target."""
        return target + (self.options.k, 0)
