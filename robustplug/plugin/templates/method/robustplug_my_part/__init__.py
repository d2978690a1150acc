"""The declarations of my-part, for `robustplug show my-part`; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, MethodOptions, UnitInterval, Use, hookimpl, use

PAPER = "Goodfellow, Shlens & Szegedy 2015, Explaining and Harnessing Adversarial Examples, arXiv:1412.6572"


@dataclass(frozen=True)
class MyPartOptions(MethodOptions):
    """Options of `my-part`.

    Attributes:
        alpha: α, weight of the loss on clean samples; 1 − α is the weight of the loss on perturbed ones.
    """

    alpha: UnitInterval = 0.5
    perturbation: Use = use("fgsm")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer my-part."""
    yield Component(
        "my-part",
        "robustplug_my_part.method:MyPart",
        MyPartOptions,
        "cross entropy on clean and on perturbed samples, weighted by α",
        PAPER,
    )
