"""The ensemble of attacks as a component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...api import Ensemble

if TYPE_CHECKING:
    from ...api import Perturbation
    from . import EnsembleOptions


def ensemble(options: EnsembleOptions, *, attacks: tuple[Perturbation, ...]) -> Ensemble:
    """Build an ensemble; its parts have the names of their components, numbered where a name repeats."""
    names = [use.name for use in options.attacks]
    unique = [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]
    return Ensemble(tuple(zip(unique, attacks, strict=True)))
