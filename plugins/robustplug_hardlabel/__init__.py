"""Attacks that see nothing of a model but its decisions: OPT, Sign-OPT, SVM-OPT and RayS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Count, Positive, hookimpl

_OPT = "Cheng et al. 2019, Query-Efficient Hard-label Black-box Attack, arXiv:1807.04457"
_SIGN = "Cheng et al. 2020, Sign-OPT: A Query-Efficient Hard-label Adversarial Attack, arXiv:1909.10773"
_RAYS = "Chen and Gu 2020, RayS: A Ray Searching Method for Hard-label Adversarial Attack, arXiv:2006.12792"
_HERE = "robustplug_hardlabel.attack"


@dataclass(frozen=True)
class OptOptions:
    """Options of `opt`.

    Attributes:
        queries: rows that the model may be asked for, for each sample, all searches included.
        starts: random directions to begin with; the best is kept.
        directions: q, random directions of a gradient estimate.
        beta: β, length of the change of a direction.
    """

    queries: Count = 4000
    starts: Count = 100
    directions: Count = 20
    beta: Positive = 0.005


@dataclass(frozen=True)
class SignOptOptions:
    """Options of `sign-opt`.

    Attributes:
        queries: rows that the model may be asked for, for each sample, all searches included.
        starts: random directions to begin with; the best is kept.
        directions: Q, random directions of a gradient estimate, one query each.
        beta: β, length of the change of a direction.
    """

    queries: Count = 4000
    starts: Count = 100
    directions: Count = 200
    beta: Positive = 0.001


@dataclass(frozen=True)
class SvmOptOptions(SignOptOptions):
    """Options of `svm-opt`: those of `sign-opt`, with fewer directions for each estimate."""

    directions: Count = 100


@dataclass(frozen=True)
class RaysOptions:
    """Options of `rays`.

    Attributes:
        queries: rows that the model may be asked for, for each sample.
        tolerance: of the binary search, as a Euclidean length.
    """

    queries: Count = 10_000
    tolerance: Positive = 1e-3


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks."""
    few = {"queries": 200, "starts": 10, "directions": 20}
    yield Component(
        "opt",
        f"{_HERE}:HardLabel.opt",
        OptOptions,
        "gradient-free descent on the distance to the boundary",
        _OPT,
        {**few, "directions": 4},
    )
    yield Component(
        "sign-opt",
        f"{_HERE}:HardLabel.sign_opt",
        SignOptOptions,
        "the same from one query a direction",
        _SIGN,
        few,
    )
    yield Component(
        "svm-opt",
        f"{_HERE}:HardLabel.svm_opt",
        SvmOptOptions,
        "the same with the direction that agrees best with all answers",
        _SIGN,
        few,
    )
    yield Component(
        "rays",
        f"{_HERE}:HardLabel.rays",
        RaysOptions,
        "search over the signs of an L∞ perturbation",
        _RAYS,
        {"queries": 200},
    )
