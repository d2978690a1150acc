"""SWA and EMA: averages of the weights, around any method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustplug.api import Component, Count, Decay, Natural, WrapperOptions, hookimpl

SWA = (
    "Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, "
    "arXiv:1803.05407"
)
EMA = (
    "Gowal et al. 2020, Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial "
    "Examples, arXiv:2010.03593"
)


@dataclass(frozen=True)
class SwaOptions(WrapperOptions):
    """Options of `swa`.

    Attributes:
        warmup: number of first epochs whose weights are left out; Chen et al. 2021 leave out half of the run.
        every: number of epochs from one set of weights to the next.
    """

    warmup: Natural = 0
    every: Count = 1


@dataclass(frozen=True)
class EmaOptions(WrapperOptions):
    """Options of `ema`.

    Attributes:
        decay: share that the average keeps of itself in an update, at most (1 + n)/(10 + n) after n of them.
        warmup: number of first epochs that are left out, at whose end the average starts from the weights.
    """

    decay: Decay = 0.995
    warmup: Natural = 0


_TRIAL = {"inner": {"use": "pgd-at", "perturbation": {"steps": 2}}}


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer SWA and EMA."""
    yield Component(
        "swa",
        "robustplug_swa.method:Swa",
        SwaOptions,
        "around a method: leave the mean of the weights at the ends of epochs",
        SWA,
        _TRIAL,
    )
    yield Component(
        "ema",
        "robustplug_swa.method:Ema",
        EmaOptions,
        "around a method: leave an exponential average of the weights over the updates",
        EMA,
        _TRIAL,
    )
