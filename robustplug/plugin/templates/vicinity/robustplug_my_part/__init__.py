"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, NonNegative, Traits, hookimpl


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        eps: how much brighter a pixel may become, in units of the input range.
    """

    eps: NonNegative = 0.1


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.vicinity:MyPart",
        MyPartOptions,
        "every pixel may become brighter by up to eps, and none darker",
        traits=Traits(gives=frozenset({"plain"})),
    )
