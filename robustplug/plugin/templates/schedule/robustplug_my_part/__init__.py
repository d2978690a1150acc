"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Positive, hookimpl


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        power: exponent of the decay; 1 for a straight line.
    """

    power: Positive = 2.0


@hookimpl
def robustplug_schedules() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.schedule:MyPart",
        MyPartOptions,
        "polynomial decay of the learning rate from 1 to 0",
    )
