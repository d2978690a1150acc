"""ALP: adversarial training that pulls the logits of a sample and of its perturbation together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, MethodOptions, NonNegative, Use, hookimpl, use

PAPER = "Kannan, Kurakin & Goodfellow 2018, Adversarial Logit Pairing, arXiv:1803.06373"


@dataclass(frozen=True)
class AlpOptions(MethodOptions):
    """Options of `alp`.

    Attributes:
        pairing: λ, weight of the squared distance between the logits.
    """

    pairing: NonNegative = 0.5
    perturbation: Use = use("pgd", steps=10)
    loss: Use = use("alp")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer ALP."""
    yield Component(
        "alp",
        "robustplug_alp.method:Alp",
        AlpOptions,
        "cross entropy on clean and perturbed samples, and λ times the distance of their logits",
        PAPER,
        {"perturbation": {"steps": 2}},
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss of ALP."""
    yield Component(
        "alp",
        "robustplug_alp.method:PairingLoss",
        summary='cross entropy, and for views of kind "pair" the squared distance to the clean logits',
        paper=PAPER,
    )
