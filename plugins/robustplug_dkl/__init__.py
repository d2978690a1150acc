"""DKL: the KL divergence of TRADES taken apart, and improved (IKL)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, MethodOptions, NonNegative, Positive, Traits, Use, hookimpl, use

PAPER = "Cui et al. 2023, Decoupled Kullback-Leibler Divergence Loss, arXiv:2305.13948"


@dataclass(frozen=True)
class DklLossOptions:
    """Options of the loss `dkl`.

    Attributes:
        mse_weight: factor of the weighted mean squared error of the logits' differences.
        entropy_weight: factor of the cross entropy with the clean prediction.
        symmetric: whether the squared error also changes the perturbed outputs, as in IKL; false for DKL,
            which has the gradient of the KL divergence if both factors are 1.
        attack_mse_weight: factor of the squared error in the training attack of `dkl`, beside a cross
            entropy of factor 1; in the authors' code 0 on CIFAR-10, and 1 on CIFAR-100.
    """

    mse_weight: NonNegative = 20.0
    entropy_weight: NonNegative = 4.0
    symmetric: bool = True
    attack_mse_weight: NonNegative = 0.0


@dataclass(frozen=True)
class DklOptions(MethodOptions):
    """Options of `dkl`.

    Attributes:
        temperature: T, by which the logits are divided in the class means of the clean predictions.
    """

    temperature: Positive = 4.0
    vicinity: Use = use("linf", eps=0.031)
    perturbation: Use = use("pgd", steps=10, step_size=0.007, start="normal", start_scale=0.001)
    label_map: Use = use("trades")
    loss: Use = use("dkl")


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer adversarial training with IKL."""
    yield Component(
        "dkl",
        "robustplug_dkl.method:Dkl",
        DklOptions,
        "clean cross entropy plus the improved decoupled KL of the perturbed prediction",
        PAPER,
        {"perturbation": {"steps": 2}},
        traits=Traits(
            gives=frozenset({"clean-view"}),
            needs={"moves": "the divergence of a prediction from itself is 0: add a perturbation"},
        ),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss, also in the place of that of TRADES."""
    yield Component(
        "dkl",
        "robustplug_dkl.method:DklLoss",
        DklLossOptions,
        "cross entropy for clean views, decoupled KL divergence for all others",
        PAPER,
        traits=Traits(
            needs={"predictions": 'it compares with the clean prediction: set label_map = "trades"'},
            excludes={
                "log-g": "the output map returns log g already, and this loss would normalise it again"
            },
        ),
    )
