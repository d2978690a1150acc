"""SPROUT: self-progressing robust training, with label smoothing trained against the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from robustplug.api import (
    Component,
    Count,
    MethodOptions,
    Natural,
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

PAPER = "Cheng et al. 2021, Self-Progressing Robust Training, arXiv:2012.11769"
_METHOD = "robustplug_sprout.method"


@dataclass(frozen=True)
class DirichletOptions:
    """Options of the label map `dirichlet`.

    Attributes:
        alpha: α, weight of β; 0 leaves the label unchanged.
        scale: s, concentration of a label: Dirichlet(s·((1 − α)·y + α·β)).
        beta_init: initial value of every β_k, or "random": U(0.5, 1.5) for each.
        beta_lr: learning rate of the ascent on β; None for that of the recipe.
        positivity: "softplus" learns β through a softplus; "clamp" learns β itself, and clamps the
            concentration to a small floor, where it has no gradient.
        draw: "label": one sample for the mixed label; "partner": one sample for the label of each partner,
            mixed afterwards.
        inner: label map that produces y.
    """

    alpha: UnitInterval = 0.01
    scale: Positive = 1.0
    beta_init: Positive | Literal["random"] = "random"
    beta_lr: Positive | None = None
    positivity: Literal["softplus", "clamp"] = "softplus"
    draw: Literal["label", "partner"] = "label"
    inner: Annotated[Use, "label_map"] = use("one-hot")


@dataclass(frozen=True)
class SproutOptions(MethodOptions):
    """Options of `sprout`.

    Attributes:
        updates: number of updates of the weights on each batch, each with its own virtual samples.
        beta_steps: number of ascent steps on β on each batch.
        beta_inputs: "same": the first step on β uses the gradient from the backward pass of the weights;
            "clean": every step is a separate pass over the clean samples.
    """

    updates: Count = 1
    beta_steps: Natural = 1
    beta_inputs: Literal["same", "clean"] = "same"
    vicinity: Use = use("mixup", a=0.2, inner={"use": "gaussian", "sigma": 0.1})
    label_map: Use = use("dirichlet")

    def __post_init__(self) -> None:
        if self.beta_inputs == "same" and not self.beta_steps:
            raise ValueError(
                'beta_steps must be at least 1 with beta_inputs = "same"; to keep β fixed, use "clean"'
            )


OFFICIAL = {
    "updates": 3,
    "beta_inputs": "clean",
    # Dirichlet(10·y + u), u = 1 at first: 11·((1 − 1/11)·y + u/11).
    "label_map": {
        "use": "dirichlet",
        "alpha": "1/11",
        "scale": 11.0,
        "beta_init": 1.0,
        "positivity": "clamp",
        "draw": "partner",
    },
}


def _label_traits(options: DirichletOptions) -> Traits:
    if not options.alpha:
        return Traits()
    return Traits(
        gives=frozenset({"draws-labels", "rows"}),
        excludes={
            "draws-labels": "the inner label map already draws labels",
            "ignores-target": "the loss ignores the drawn label, so β could not learn",
        },
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label map of SPROUT."""
    yield Component(
        "dirichlet",
        f"{_METHOD}:DirichletLabels",
        DirichletOptions,
        "Dirichlet((1 − α)·y + α·β) with a β that ascends the loss",
        PAPER,
        traits=_label_traits,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer SPROUT."""
    yield Component(
        "sprout",
        f"{_METHOD}:Sprout",
        SproutOptions,
        "Gaussian noise, mixup, and labels from a Dirichlet distribution trained against the model",
        PAPER,
        variants={"paper": {}, "official": OFFICIAL},
    )


@hookimpl
def robustplug_figures(run: OpenedRun, folder: Path) -> Iterable[tuple[str, str]]:
    """Draw the correlogram of β."""
    from .commands import draw_beta

    draw_beta(run, folder)
    return ()
