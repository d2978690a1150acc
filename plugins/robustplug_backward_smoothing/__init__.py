"""Backward Smoothing and N-FGSM: single-step attacks from better starting points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustplug.api import Component, MethodOptions, Natural, NonNegative, Positive, Use, hookimpl, use

PAPER = "Chen et al. 2020, Efficient Robust Training via Backward Smoothing, arXiv:2010.01278"
_N_FGSM = "de Jorge et al. 2022, Make Some Noise, arXiv:2202.01181"
_HERE = "robustplug_backward_smoothing.attacks"


@dataclass(frozen=True)
class BackwardSmoothingOptions:
    """Options of `backward-smoothing`.

    Attributes:
        gamma: γ, size of the random change of the logits.
        steps: K, number of gradient steps on the method's objective; 0 for the initialisation alone.
        step_ratio: size of all steps, in units of the radius.
        batchnorm: mode of the model during the attack.
    """

    gamma: Positive = 1.0
    steps: Natural = 1
    step_ratio: Positive = 1.0
    batchnorm: Literal["eval", "train"] = "eval"


@dataclass(frozen=True)
class NFgsmOptions:
    """Options of `n-fgsm`.

    Attributes:
        noise: k, half-width of the uniform noise, in units of ε.
        step: α, size of the gradient step, in units of ε.
        batchnorm: mode of the model during the attack.
    """

    noise: NonNegative = 2.0
    step: Positive = 1.0
    batchnorm: Literal["eval", "train"] = "train"


@dataclass(frozen=True)
class NFgsmTrainingOptions(MethodOptions):
    """Options of the method `n-fgsm`: the slots; its attack has the radius (noise + step)·ε."""

    perturbation: Use = use("n-fgsm")


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer both attacks."""
    yield Component(
        "backward-smoothing",
        f"{_HERE}:BackwardSmoothing",
        BackwardSmoothingOptions,
        "a step towards randomly moved logits, then gradient steps",
        PAPER,
    )
    yield Component(
        "n-fgsm",
        f"{_HERE}:NFgsm",
        NFgsmOptions,
        "strong noise, then one gradient step; the radius covers both",
        _N_FGSM,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer adversarial training with N-FGSM."""
    yield Component(
        "n-fgsm",
        "robustplug_backward_smoothing.attacks:NFgsmTraining",
        NFgsmTrainingOptions,
        "adversarial training with N-FGSM, whose attack may leave the ball of ε",
        _N_FGSM,
    )
