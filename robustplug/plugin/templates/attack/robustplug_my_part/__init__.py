"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Size, hookimpl


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        steps: number of steps.
    """

    steps: Size = 10


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.attack:MyPart",
        MyPartOptions,
        "gradient ascent from a random point with steps of ε, ε/2, ε/3, …",
        trial={"steps": 3},
    )
