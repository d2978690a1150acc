"""HAT: helper examples that a standard network labels, beside clean and perturbed samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Component, MethodOptions, NonNegative, Positive, Traits, Use, hookimpl, use


@dataclass(frozen=True, kw_only=True)
class HatOptions(MethodOptions):
    """Options of `hat`.

    Attributes:
        helper: the standard network that labels the helper examples.
        beta: β, weight of the divergence at the perturbed samples.
        gamma: γ, weight of the helper examples; 0 leaves them out.
        reach: how far the helper examples are from their origins, in perturbations: x + reach · (x' − x).
    """

    helper: Annotated[Use, "model"]
    beta: NonNegative = 2.5
    gamma: NonNegative = 0.5
    reach: Positive = 2.0
    vicinity: Use = use("linf", eps=8 / 255)
    perturbation: Use = use("pgd", steps=10, step_size=2 / 255, start="normal", start_scale=0.001)
    label_map: Use = use("trades")
    loss: Use = use("trades")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer HAT."""
    yield Component(
        "hat",
        "robustplug_hat.method:Hat",
        HatOptions,
        "TRADES with helper examples beyond the perturbed ones, labelled by a standard network",
        "Rade and Moosavi-Dezfooli 2022, Reducing Excessive Margin to Achieve a Better Accuracy vs. "
        "Robustness Trade-off, ICLR, OpenReview Azh9QBQ4tR7",
        {"helper": {"use": "small-cnn", "width": 2, "hidden": 4}, "perturbation": {"steps": 2}},
        traits=Traits(
            gives=frozenset({"clean-view"}),
            needs={"moves": "helper examples extend a perturbation: add one"},
            excludes={"mixtures": "the helper network gives one class, and a mixture has several"},
        ),
    )
