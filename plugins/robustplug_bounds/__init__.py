"""Certified bounds on the outputs of networks: interval bound propagation and CROWN."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import (
    Component,
    MethodOptions,
    Natural,
    NonNegative,
    Positive,
    UnitInterval,
    hookimpl,
)

GOWAL = "Gowal et al. 2018, On the Effectiveness of Interval Bound Propagation, arXiv:1810.12715"
CROWN = "Zhang et al. 2018, Efficient Neural Network Robustness Certification, arXiv:1811.00866"
CROWN_IBP = (
    "Zhang et al. 2020, Towards Stable and Efficient Training of Verifiably Robust Neural Networks, "
    "arXiv:1906.06316"
)

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class BoundOptions:
    """Options of `ibp`, `crown-ibp` and `crown`.

    Attributes:
        norm: norm of the certified radii.
        radii: further radii at which the certified accuracy is stated.
        search: steps of the bisection for each sample's largest radius; 0 to test the threat model's and
            `radii` alone.
        reach: largest radius of the search, as a multiple of the threat model's.
    """

    norm: Norm = "linf"
    radii: tuple[NonNegative, ...] = ()
    search: Natural = 6
    reach: Positive = 2.0


@dataclass(frozen=True)
class IbpOptions(MethodOptions):
    """Options of the method `ibp`: the slots, and the schedules.

    Attributes:
        kappa: κ at the end, weight of the loss of the samples; 1 − κ is that of the bounds.
        ratio: radius of the bounds at the end, as a multiple of the threat model's.
        warmup: share of the run before the bounds count.
        rampup: share of the run in which radius and 1 − κ rise from 0 to their ends.
        init: "model" leaves the weights as they are; "ibp" draws them so that intervals keep their width.
    """

    kappa: UnitInterval = 0.5
    ratio: Positive = 1.1
    warmup: UnitInterval = 0.05
    rampup: UnitInterval = 0.5
    init: Literal["model", "ibp"] = "model"


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer training for interval bounds."""
    yield Component(
        "ibp",
        "robustplug_bounds.method:Ibp",
        IbpOptions,
        "the samples, and the worst logits that interval bounds allow",
        GOWAL,
        {"warmup": 0.0, "rampup": 0.2},
    )


@hookimpl
def robustplug_measurements() -> Iterable[Component]:
    """Offer the bounds as certificates."""
    for name, factory, summary, paper in (
        ("ibp", "Ibp", "certified radii by interval bounds", GOWAL),
        ("crown-ibp", "CrownIbp", "certified radii by linear bounds over interval bounds", CROWN_IBP),
        ("crown", "Crown", "certified radii by linear bounds of every layer", CROWN),
    ):
        place = f"robustplug_bounds.measurement:{factory}"
        yield Component(name, place, BoundOptions, summary, paper, {"search": 3, "radii": [0.01]})
