"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Size, hookimpl


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        width: number of channels of the first convolution; the second has twice as many.
    """

    width: Size = 16


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.model:network",
        MyPartOptions,
        "two convolutions and a linear layer, for images of at least 4x4",
        trial={"width": 4},
    )
