"""MART: misclassification aware adversarial training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, MethodOptions, NonNegative, Traits, Use, hookimpl, use

PAPER = (
    "Wang et al. 2020, Improving Adversarial Robustness Requires Revisiting Misclassified Examples, "
    "OpenReview rklOg6EFwS"
)


@dataclass(frozen=True)
class MartOptions(MethodOptions):
    """Options of `mart`.

    Attributes:
        beta: weight of the divergence; λ in the paper, where it is 5; the authors' code has 5 for ResNet-18
            and 6 for WRN-34-10.
    """

    beta: NonNegative = 5.0
    vicinity: Use = use("linf", eps=0.031)
    perturbation: Use = use(
        "pgd", steps=10, step_size=0.007, start="normal", start_scale=0.001, loss=use("ce")
    )
    label_map: Use = use("mart")
    loss: Use = use("mart")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer MART."""
    yield Component(
        "mart",
        "robustplug_mart.method:Mart",
        MartOptions,
        "boosted cross entropy, plus β · KL weighted by how unsure the clean prediction is",
        PAPER,
        {"perturbation": {"steps": 2}},
        traits=Traits(
            needs={
                "moves": "the divergence of a prediction from itself is 0: add a perturbation",
                "clean-outputs": 'its divergence is from the clean prediction: set label_map = "mart"',
            },
        ),
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label map of MART."""
    yield Component(
        "mart",
        "robustplug_mart.method:MartTarget",
        summary="the prediction at the origin for the views of a divergence, the label for all others",
        paper=PAPER,
        traits=Traits(gives=frozenset({"clean-outputs"})),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss of MART."""
    yield Component(
        "mart",
        "robustplug_mart.method:MartLoss",
        summary="KL divergence for the views of a divergence, boosted cross entropy for all others",
        paper=PAPER,
        traits=Traits(
            excludes={"log-g": "the output map returns log g already, and this loss would normalise it again"}
        ),
    )
