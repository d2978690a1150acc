"""AWP: adversarial weight perturbation, around any method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Natural, Positive, WrapperOptions, hookimpl

PAPER = "Wu, Xia and Wang 2020, Adversarial Weight Perturbation Helps Robust Generalization, arXiv:2004.05884"


@dataclass(frozen=True)
class AwpOptions(WrapperOptions):
    """Options of `awp`.

    Attributes:
        gamma: γ, size of the move of each layer's weights, relative to their norm; 0.01 around
            adversarial training and 0.005 around TRADES in the authors' code.
        warmup: number of first epochs without moves.
    """

    gamma: Positive = 0.01
    warmup: Natural = 0


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer AWP."""
    yield Component(
        "awp",
        "robustplug_awp.method:Awp",
        AwpOptions,
        "around a method: its loss at the worst weights nearby",
        PAPER,
        {"inner": {"use": "pgd-at", "perturbation": {"steps": 2}}},
    )
