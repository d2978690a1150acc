"""Perturbations without an ascent of their own: none, noise, and several attacks in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...api import Cost, Ensemble

if TYPE_CHECKING:
    from ...api import Perturbation, Step, Vicinity, View
    from . import EnsembleOptions, NoiseOptions


class NoPerturbation:
    """Leave the samples unchanged."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view itself."""
        return view

    def cost(self, target: Cost) -> Cost:
        """Count nothing."""
        return Cost(0, 0)


class Noise:
    """Move each sample to a uniformly random point of its ball."""

    def __init__(self, options: NoiseOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at a random point."""
        radius = self.options.scale * step.radii(view, vicinity)
        return view.replace(x=vicinity.random_point(view.origin, radius, step.rng).detach())

    def cost(self, target: Cost) -> Cost:
        """Count nothing."""
        return Cost(0, 0)


def ensemble(options: EnsembleOptions, *, attacks: tuple[Perturbation, ...]) -> Ensemble:
    """Build an ensemble; its parts have the names of their components, numbered where a name repeats."""
    names = [use.name for use in options.attacks]
    unique = [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]
    return Ensemble(tuple(zip(unique, attacks, strict=True)))
