"""TRADES: clean cross entropy plus the divergence of perturbed predictions, weighted by β."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Component, MethodOptions, NonNegative, Traits, Use, hookimpl, use

PAPER = (
    "Zhang et al. 2019, Theoretically Principled Trade-off between Robustness and Accuracy, arXiv:1901.08573"
)


@dataclass(frozen=True)
class TradesOptions(MethodOptions):
    """Options of `trades`.

    Attributes:
        beta: weight of the divergence; 1/λ in the paper, where it is 1 or 6.
    """

    beta: NonNegative = 6.0
    vicinity: Use = use("linf", eps=0.031)
    perturbation: Use = use("pgd", steps=10, step_size=0.007, start="normal", start_scale=0.001)
    label_map: Use = use("trades")
    loss: Use = use("trades")


@dataclass(frozen=True)
class TradesLabelOptions:
    """Options of the label map `trades`.

    Attributes:
        labels: label map of the clean views, such as `smooth`; None for the labels as they are.
    """

    labels: Annotated[Use | None, "label_map"] = None


@dataclass(frozen=True)
class TradesLossOptions:
    """Options of the loss `trades`.

    Attributes:
        clean: loss of the clean views, with their labels.
        divergence: loss of all other views, with the predictions at their origins.
    """

    clean: Annotated[Use, "loss"] = use("ce")
    divergence: Annotated[Use, "loss", "rows"] = use("kl")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer TRADES."""
    yield Component(
        "trades",
        "robustplug_trades.method:Trades",
        TradesOptions,
        "clean cross entropy plus β · KL of the perturbed prediction",
        PAPER,
        {"perturbation": {"steps": 2}},
        traits=Traits(
            gives=frozenset({"clean-view"}),
            needs={"moves": "the divergence of a prediction from itself is 0: add a perturbation"},
        ),
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label map of TRADES."""
    yield Component(
        "trades",
        "robustplug_trades.method:CleanPrediction",
        TradesLabelOptions,
        "the label for clean views, the prediction at the origin for all others",
        PAPER,
        traits=Traits(
            gives=frozenset({"predictions"}),
            needs={"clean-view": "without a clean view the model would learn nothing from the true labels"},
            excludes={
                "ignores-target": "the loss would ignore the predictions",
                "starts-at-origin": 'the divergence has no gradient at the origin: set start = "uniform" or '
                '"normal", or give the attack a loss of its own',
            },
        ),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss of TRADES."""
    yield Component(
        "trades",
        "robustplug_trades.method:TradesLoss",
        TradesLossOptions,
        "cross entropy for clean views, KL divergence for all others",
        PAPER,
        traits=Traits(
            excludes={"log-g": "the output map returns log g already, and this loss would normalise it again"}
        ),
    )
