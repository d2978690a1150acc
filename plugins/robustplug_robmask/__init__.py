"""RobMask, AdvProp, and the analysis of adversarial masking: BatchNorm's rescaling as a mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustplug.api import (
    Component,
    Count,
    MethodOptions,
    Positive,
    Traits,
    UnitInterval,
    Use,
    hookimpl,
    use,
)

if TYPE_CHECKING:
    from pathlib import Path

    from robustplug.api import OpenedRun

PAPER = "Cheng 2021, doctoral thesis, chapter 6: RobMask"
_ADVPROP = "Xie et al. 2020, Adversarial Examples Improve Image Recognition, arXiv:1911.09665"
_METHOD = "robustplug_robmask.method"
_TRAITS = Traits(
    gives=frozenset({"radii", "clean-view", "masks"}),
    needs={"switches-masks": 'its masks would never be used: keep the default, output_map = "mask"'},
)


@dataclass(frozen=True)
class RobMaskOptions(MethodOptions):
    """Options of `robmask`; ε_max is the vicinity's eps.

    Attributes:
        bases: k, number of columns of W and W'.
        strengths: distribution of each batch's p: "uniform" on [0, 1], or "anchors": 1/(k − 1), …, 1.
        statistics: running mean and variance: "shared" by all masks, which may be mixtures; or "separate",
            a norm for each basis, which covers the strengths up to its own.
        clean_weight: share of the clean view in the loss.
        mask_lr: learning rate of W and W'; None for the recipe's learning rate.
        deploy: p of the exported model's mask: 0 for clean samples, 1 for attacks with ε_max.
    """

    bases: Count = 2
    strengths: Literal["uniform", "anchors"] = "uniform"
    statistics: Literal["shared", "separate"] = "shared"
    clean_weight: UnitInterval = 0.5
    mask_lr: Positive | None = None
    deploy: UnitInterval = 0.0
    perturbation: Use = use("pgd", steps=7, step_ratio=0.2)
    output_map: Use = use("mask")

    def __post_init__(self) -> None:
        if self.strengths == "anchors" and self.bases < 2:
            raise ValueError('strengths = "anchors" needs at least 2 bases: the first is for clean samples')


@dataclass(frozen=True)
class AdvPropOptions(RobMaskOptions):
    """Options of `advprop`: those of `robmask`, with an auxiliary BatchNorm for attacked samples.

    With more than two bases there are several auxiliary norms, one for each strength.
    """

    strengths: Literal["uniform", "anchors"] = "anchors"
    statistics: Literal["shared", "separate"] = "separate"


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the output map that applies the mask of a view."""
    yield Component(
        "mask",
        f"{_METHOD}:MaskedOutput",
        summary="the model's outputs under the mask of the view's strength",
        paper=PAPER,
        traits=Traits(
            gives=frozenset({"switches-masks"}),
            needs={"masks": 'a method such as "robmask" or "advprop" puts the masks into the model'},
        ),
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer RobMask and AdvProp."""
    yield Component(
        "robmask",
        f"{_METHOD}:RobMask",
        RobMaskOptions,
        "BatchNorm rescalings (masks) that are mixed by the strength of the attack",
        PAPER,
        {"perturbation": {"steps": 2}},
        traits=_TRAITS,
    )
    yield Component(
        "advprop",
        f"{_METHOD}:RobMask",
        AdvPropOptions,
        "an auxiliary BatchNorm for adversarial examples, so that they improve clean accuracy",
        _ADVPROP,
        {"perturbation": {"steps": 2}},
        traits=_TRAITS,
    )


@hookimpl
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw the first BatchNorm layer under the masks of ε = 0 and of ε_max."""
    from .commands import draw_masks

    if not draw_masks(run, folder) or (run.folder / "figures" / "masks.png").is_file():
        return ()
    return [("accuracy under the masks of several ε", f"robustplug mask sweep {run.folder}")]
