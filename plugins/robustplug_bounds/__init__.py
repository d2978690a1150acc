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
    Traits,
    UnitInterval,
    Use,
    hookimpl,
    use,
)

GOWAL = "Gowal et al. 2018, On the Effectiveness of Interval Bound Propagation, arXiv:1810.12715"
CROWN = "Zhang et al. 2018, Efficient Neural Network Robustness Certification, arXiv:1811.00866"
CROWN_IBP = (
    "Zhang et al. 2020, Towards Stable and Efficient Training of Verifiably Robust Neural Networks, "
    "arXiv:1906.06316"
)
XU = (
    "Xu et al. 2021, Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel "
    "Incomplete Verifiers, arXiv:2011.13824"
)
MUELLER = "Müller et al. 2023, Certified Training: Small Boxes are All You Need, arXiv:2210.04871"
DE_PALMA = (
    "De Palma et al. 2024, Expressive Losses for Verified Robustness via Convex Combinations, "
    "arXiv:2305.13991"
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
class AlphaCrownOptions(BoundOptions):
    """Options of `alpha-crown`.

    Attributes:
        steps: steps in which the lower lines are optimised, each a pass of linear bounds and its gradient.
        layers: whether the bounds of layers are optimised, too, at a cost for each value in front of an
            activation; otherwise they are those of CROWN.
    """

    steps: Natural = 20
    layers: bool = True


@dataclass(frozen=True)
class BoundTrainingOptions(MethodOptions):
    """Options of all methods that train for bounds: the slots, and the schedule.

    Attributes:
        ratio: radius of the bounds at the end, as a multiple of the threat model's.
        warmup: share of the run before the bounds count.
        rampup: share of the run in which the radius rises from 0 to its end.
        ramp: how it rises: "linear", or "smoothed", slowly at first.
        init: "model" leaves the weights as they are; "ibp" draws them so that intervals keep their width.
        regularisation: weight of the regularisation of the intervals, which falls to 0 as the radius rises.
    """

    ratio: Positive = 1.0
    warmup: UnitInterval = 0.05
    rampup: UnitInterval = 0.5
    ramp: Literal["linear", "smoothed"] = "linear"
    init: Literal["model", "ibp"] = "model"
    regularisation: NonNegative = 0.0


@dataclass(frozen=True)
class IbpOptions(BoundTrainingOptions):
    """Options of the method `ibp`.

    Attributes:
        kappa: κ at the end, weight of the loss of the samples; 1 − κ, which rises with the radius, is that of
            the bounds.
    """

    ratio: Positive = 1.1
    kappa: UnitInterval = 0.5


@dataclass(frozen=True)
class CrownIbpOptions(IbpOptions):
    """Options of the method `crown-ibp`.

    Attributes:
        beta: β at the end, weight of the linear bounds; 1 − β, which rises with the radius, is that of the
            intervals.
        fused: whether one linear function bounds the loss of a sample, which costs as much as one class.
    """

    ratio: Positive = 1.0
    beta: UnitInterval = 0.0
    fused: bool = False


@dataclass(frozen=True)
class SabrOptions(BoundTrainingOptions):
    """Options of the method `sabr`.

    Attributes:
        share: λ, radius of the small boxes as a share of the ball's.
        kappa: κ, weight of the loss of the samples after the warm-up.
    """

    share: UnitInterval = 0.4
    kappa: UnitInterval = 0.0
    perturbation: Use = use("pgd", steps=8, step_ratio=0.5)


@dataclass(frozen=True)
class MtlIbpOptions(BoundTrainingOptions):
    """Options of the method `mtl-ibp`.

    Attributes:
        alpha: α, weight of the loss of the bounds; 1 − α is that of the attacked samples.
        attack_ratio: radius of the attack, as a multiple of that of the bounds.
    """

    ratio: Positive = 1.334
    alpha: UnitInterval = 0.08
    attack_ratio: Positive = 1.0
    perturbation: Use = use("pgd", steps=1, step_ratio=10.0)


def _traits(options: BoundTrainingOptions) -> Traits:
    anew = 'it draws the weights anew: set method.init = "model"'
    return Traits(excludes={"trained": anew} if options.init == "ibp" else {})


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer training for bounds."""
    here, short = "robustplug_bounds.method", {"warmup": 0.0, "rampup": 0.2}
    yield Component(
        "ibp",
        f"{here}:Ibp",
        IbpOptions,
        "the samples, and the worst logits that interval bounds allow",
        GOWAL,
        short,
        traits=_traits,
    )
    yield Component(
        "crown-ibp",
        f"{here}:CrownIbp",
        CrownIbpOptions,
        "the samples, and the worst logits by linear bounds, which give way to intervals",
        CROWN_IBP,
        {**short, "beta": 0.5},
        traits=_traits,
    )
    yield Component(
        "sabr",
        f"{here}:Sabr",
        SabrOptions,
        "the worst logits in a small box around an adversarial example",
        MUELLER,
        {**short, "perturbation": {"steps": 2}},
        traits=_traits,
    )
    yield Component(
        "mtl-ibp",
        f"{here}:MtlIbp",
        MtlIbpOptions,
        "adversarial examples, and the worst logits that interval bounds allow",
        DE_PALMA,
        short,
        traits=_traits,
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the worst logits, for methods with a radius of each sample."""
    needs = {"radii": 'it bounds each sample within its own radius, which "cat" and "iaat" provide'}
    yield Component(
        "worst-logits",
        "robustplug_bounds.method:WorstLogits",
        summary="the worst logits that interval bounds of each sample's own radius allow",
        paper=GOWAL,
        traits=Traits(needs=needs),
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
    yield Component(
        "alpha-crown",
        "robustplug_bounds.measurement:AlphaCrown",
        AlphaCrownOptions,
        "certified radii as by crown, with lower lines that are optimised for each value",
        XU,
        {"search": 1, "steps": 3},
    )
