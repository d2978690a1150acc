"""GradAlign: input gradients that agree within the ball, around any method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, NonNegative, WrapperOptions, hookimpl

PAPER = (
    "Andriushchenko and Flammarion 2020, Understanding and Improving Fast Adversarial Training, "
    "arXiv:2007.02617"
)


@dataclass(frozen=True)
class GradAlignOptions(WrapperOptions):
    """Options of `gradalign`.

    Attributes:
        strength: λ, weight of the misalignment; for CIFAR-10 at ε = 8/255, 0.2 in the paper.
    """

    strength: NonNegative = 0.2


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer GradAlign."""
    yield Component(
        "gradalign",
        "robustplug_gradalign.method:GradAlign",
        GradAlignOptions,
        "around a method: a penalty on input gradients that differ within the ball",
        PAPER,
        {"inner": {"use": "fast-at"}},
    )
