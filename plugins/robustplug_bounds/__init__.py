"""Certified bounds on the outputs of networks: interval bound propagation and CROWN."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import Component, Natural, NonNegative, Positive, hookimpl

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
