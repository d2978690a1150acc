"""Decision-based black-box attacks: OPT, Sign-OPT, SVM-OPT, RayS and their peers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustplug.api import Component, Count, Positive, Traits, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from robustplug.api import OpenedRun

_OPT = "Cheng et al. 2019, Query-Efficient Hard-label Black-box Attack, arXiv:1807.04457"
_SIGN = "Cheng et al. 2020, Sign-OPT: A Query-Efficient Hard-label Adversarial Attack, arXiv:1909.10773"
_RAYS = "Chen and Gu 2020, RayS: A Ray Searching Method for Hard-label Adversarial Attack, arXiv:2006.12792"
_HERE = "robustplug_hardlabel.attack"
_IN_BALLS = Traits(
    needs={"norm-ball": "it looks for the nearest example, in a whole L∞ or L2 ball, and this set is none"},
    excludes={"l1-ball": "it measures distances in L∞ or L2"},
)

# A search asks for decisions of rows of values, or for probabilities of classes.
_DECIDED, _SCORED = ("classes", "numbers", "label-sets"), ("classes",)

Target = Literal["none", "random"]


@dataclass(frozen=True)
class _Descent:
    """Options of the attacks that minimise the distance to the boundary.

    Attributes:
        queries: query budget of each sample, binary searches included.
        starts: number of initial directions: random, or towards training images of the target class. The
            best is kept.
        target: "none" for an untargeted attack; "random" draws a target class for each sample, the same for
            all attacks.
        objective: "plain", the length of the perturbation; or "smooth", for L∞ threat models, the sum of the
            squared excesses of its entries over eps.
    """

    queries: Count = 4000
    starts: Count = 100
    target: Target = "none"
    objective: Literal["plain", "smooth"] = "plain"


@dataclass(frozen=True)
class OptOptions(_Descent):
    """Options of `opt`.

    Attributes:
        directions: q, number of random directions of a gradient estimate.
        beta: β, step of the finite differences.
    """

    directions: Count = 20
    beta: Positive = 0.005


@dataclass(frozen=True)
class SignOptOptions(_Descent):
    """Options of `sign-opt`.

    Attributes:
        directions: Q, number of random directions of a gradient estimate, one query each.
        beta: β, step of the finite differences.
    """

    directions: Count = 200
    beta: Positive = 0.001


@dataclass(frozen=True)
class SvmOptOptions(SignOptOptions):
    """Options of `svm-opt`: those of `sign-opt`, with fewer directions per estimate."""

    directions: Count = 100


@dataclass(frozen=True)
class ZoSignSgdOptions(SignOptOptions):
    """Options of `zo-sign-sgd`: those of `sign-opt`.

    Attributes:
        oracle: "sign", one query per direction; or "distance", a search for the boundary along each.
    """

    oracle: Literal["sign", "distance"] = "sign"


@dataclass(frozen=True)
class RaysOptions:
    """Options of `rays`.

    Attributes:
        queries: query budget of each sample.
        tolerance: tolerance of the binary search, as a Euclidean length.
    """

    queries: Count = 10_000
    tolerance: Positive = 1e-3


@dataclass(frozen=True)
class ZooOptions:
    """Options of `zoo`.

    Attributes:
        queries: query budget of each sample.
        target: as for `sign-opt`.
        coordinates: number of pixels changed in a step, two queries each.
        lr: learning rate of Adam.
        h: step of the finite differences.
        c: initial weight of the misclassification loss against the squared length.
        search_steps: number of values of c to try.
    """

    queries: Count = 20_000
    target: Target = "none"
    coordinates: Count = 128
    lr: Positive = 0.01
    h: Positive = 1e-4
    c: Positive = 1.0
    search_steps: Count = 1


@dataclass(frozen=True)
class NesOptions:
    """Options of `nes`.

    Attributes:
        queries: query budget of each sample.
        target: as for `sign-opt`.
        directions: n, number of random directions of a gradient estimate, in antithetic pairs.
        sigma: σ, standard deviation of the directions.
        step_ratio: step size divided by eps.
    """

    queries: Count = 4000
    target: Target = "none"
    directions: Count = 50
    sigma: Positive = 1e-3
    step_ratio: Positive = 0.2


@dataclass(frozen=True)
class PeerOptions:
    """Options of `boundary` and `hop-skip-jump`; ART's defaults apply otherwise.

    Attributes:
        queries: query budget of each sample.
        starts: number of random points to try as a start.
    """

    queries: Count = 4000
    starts: Count = 100


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks."""
    few = {"queries": 40, "starts": 10, "directions": 10}
    for name, factory, options, summary, paper, trial in (
        (
            "opt",
            "HardLabel.opt",
            OptOptions,
            "zeroth-order descent on the distance to the decision boundary",
            _OPT,
            {**few, "directions": 4},
        ),
        ("sign-opt", "HardLabel.sign_opt", SignOptOptions, "OPT with one query per direction", _SIGN, few),
        (
            "svm-opt",
            "HardLabel.svm_opt",
            SvmOptOptions,
            "Sign-OPT with the direction of maximum margin over all signs",
            _SIGN,
            few,
        ),
        (
            "zo-sign-sgd",
            "HardLabel.zo_sign_sgd",
            ZoSignSgdOptions,
            "Sign-OPT with the sign of the estimate",
            "Liu et al. 2019, signSGD via Zeroth-Order Oracle, ICLR",
            few,
        ),
        (
            "rays",
            "HardLabel.rays",
            RaysOptions,
            "search over the signs of an L∞ perturbation",
            _RAYS,
            {"queries": 60},
        ),
        (
            "zoo",
            "HardLabel.zoo",
            ZooOptions,
            "score-based: coordinate-wise Adam",
            "Chen et al. 2017, ZOO, arXiv:1708.03999",
            {"queries": 60, "coordinates": 8},
        ),
        (
            "nes",
            "HardLabel.nes",
            NesOptions,
            "score-based: projected ascent with gradients from antithetic samples",
            "Ilyas et al. 2018, arXiv:1804.08598",
            {"queries": 60, "directions": 10},
        ),
    ):
        labels = _SCORED if name in ("zoo", "nes") else _DECIDED
        yield Component(
            name,
            f"{_HERE}:{factory}",
            options,
            summary,
            paper,
            trial,
            traits=_IN_BALLS,
            for_labels=labels,
        )
    for name, factory, summary, paper in (
        ("boundary", "Peer.boundary", "ART's Boundary attack", "Brendel et al. 2018, arXiv:1712.04248"),
        ("hop-skip-jump", "Peer.hop_skip_jump", "ART's HopSkipJump", "Chen et al. 2020, arXiv:1904.02144"),
    ):
        trial = {"queries": 40, "starts": 10}
        made = f"robustplug_hardlabel.peers:{factory}"
        yield Component(name, made, PeerOptions, summary, paper, trial, traits=_IN_BALLS, for_labels=_DECIDED)


@hookimpl
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Return the command that draws distortion against queries; it takes too long for every page."""
    drawn = any((run.folder / "evaluations" / "figures").glob("hard-label-distance-*.png"))
    if drawn or run.task.info.shape is None or run.task.info.classes is None:
        return ()
    return [("distortion against queries", f"robustplug hard-label curves {run.folder} --samples 50")]
