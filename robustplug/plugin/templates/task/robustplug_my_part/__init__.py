"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, NonNegative, Seed, Size, hookimpl


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        classes: number of spirals.
        noise: standard deviation of the points around their spiral.
        seed: seed of the points.
    """

    classes: Size = 3
    noise: NonNegative = 0.02
    seed: Seed = 0


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.task:MyPart",
        MyPartOptions,
        "points on spirals in the unit square, a class each",
    )
