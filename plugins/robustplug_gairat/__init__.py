"""FAT's early-stopped PGD, and GAIRAT's weights by how many of its steps a sample withstands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import (
    Component,
    Count,
    Natural,
    NonNegative,
    Positive,
    Real,
    Traits,
    Use,
    WrapperOptions,
    hookimpl,
)

FAT = (
    "Zhang et al. 2020, Attacks Which Do Not Kill Training Make Adversarial Learning Stronger, "
    "arXiv:2002.11242"
)
GAIRAT = "Zhang et al. 2021, Geometry-aware Instance-reweighted Adversarial Training, arXiv:2010.01736"


@dataclass(frozen=True)
class EarlyStoppedOptions:
    """Options of `early-stopped`.

    Attributes:
        steps: K, the largest number of gradient steps.
        step_size: step size in units of the input range; None for 2.5 · radius / steps, per sample.
        tau: τ, number of steps that a sample takes after it is misclassified; `steps` or more never stops
            early. Several numbers for the stretches of the run between the milestones.
        milestones: epochs, counted from 0, at which the next τ begins, in ascending order.
        start: first point: "zero" (the sample), "uniform" (in the ball) or "normal" (start_scale · N(0, 1)).
        start_scale: standard deviation of the normal start.
        noise: standard deviation of the normal noise that is added in each step.
        loss: loss against the true labels that replaces the method's own objective.

    Raises:
        ValueError: the milestones are not in order, or are not one fewer than the numbers τ.
    """

    steps: Count = 10
    step_size: Positive | None = None
    tau: Natural | tuple[Natural, ...] = 0
    milestones: tuple[NonNegative, ...] = ()
    start: Literal["zero", "uniform", "normal"] = "uniform"
    start_scale: Positive = 0.001
    noise: NonNegative = 0.001
    loss: Use | None = None

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError("milestones must be in ascending order")
        numbers = len(self.tau) if isinstance(self.tau, tuple) else 1
        if numbers != len(self.milestones) + 1:
            raise ValueError(
                f"tau has {numbers} numbers: give one milestone fewer, not {len(self.milestones)}"
            )


@dataclass(frozen=True)
class GairatOptions(WrapperOptions):
    """Options of `gairat`.

    Attributes:
        weights: function from κ/K to weights; "tanh" is the default of the authors' code.
        shift: λ, which makes the weights of samples more equal the larger it is; −1 in the authors' code.
            "discrete" has none.
        warmup: number of first epochs in which all weights are 1; half of the run in the authors' code.
    """

    weights: Literal["tanh", "sigmoid", "discrete"] = "tanh"
    shift: Real = -1.0
    warmup: Natural = 0


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer early-stopped PGD."""
    yield Component(
        "early-stopped",
        "robustplug_gairat.attack:EarlyStopped",
        EarlyStoppedOptions,
        "projected gradient ascent that stops soon after a sample is misclassified",
        FAT,
        {"steps": 3},
        traits=_traits,
    )


def _traits(options: EarlyStoppedOptions) -> Traits:
    stuck = options.start == "zero" and options.loss is None and not options.noise
    return Traits(gives=frozenset({"withstood", *(["starts-at-origin"] if stuck else [])}))


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer GAIRAT."""
    yield Component(
        "gairat",
        "robustplug_gairat.method:Gairat",
        GairatOptions,
        "around a method: perturbed samples weigh more the fewer steps of the attack they withstand",
        GAIRAT,
        {"inner": {"use": "pgd-at", "perturbation": {"use": "early-stopped", "steps": 2, "tau": 2}}},
        traits=Traits(
            needs={
                "withstood": "its weights need the steps that samples withstand: set the perturbation of "
                'inner to "early-stopped"'
            }
        ),
    )
