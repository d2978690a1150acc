"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, NonNegative, hookimpl

PAPER = "Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002"


@dataclass(frozen=True)
class MyPartOptions:
    """Options of `my-part`.

    Attributes:
        gamma: γ, how little a sample counts that the model is sure of; 0 for the cross entropy.
    """

    gamma: NonNegative = 2.0


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.loss:MyPart",
        MyPartOptions,
        "cross entropy in which samples count less the surer the model is of them",
        PAPER,
    )
