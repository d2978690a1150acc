"""Attacks that serve many: one perturbation for all samples, and perturbations for models not seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Bounds, Component, Count, NonNegative, Traits, UnitInterval, hookimpl

_HERE = "robustplug_transferable"


@dataclass(frozen=True)
class UniversalOptions:
    """Options of `universal`.

    Attributes:
        epochs: passes over the training samples that the perturbation is learned from.
        samples: number of these, from the start of the split; None for all.
        batch_size: samples of one step.
        step_ratio: size of the first step, as a multiple of the radius; it falls linearly to 0.
    """

    epochs: Count = 10
    samples: Count | None = 1000
    batch_size: Count = 100
    step_ratio: UnitInterval = 0.2


@dataclass(frozen=True)
class TransferableOptions:
    """Options of `transferable`.

    Attributes:
        steps: number of gradient steps, each of size radius / steps.
        decay: decay factor of the accumulated gradient; 0 for no momentum.
        diversity: probability with which a step sees a sample at another size and place.
        smallest: smallest side of these samples, as a share of the side of the image.
        kernel: side of the Gaussian kernel, in pixels, that smooths gradients; 1 for none.
        models: folders of runs; the attack ascends the loss of their mean logits. Without any, that of the
            model itself.
    """

    steps: Count = 10
    decay: NonNegative = 1.0
    diversity: UnitInterval = 0.5
    smallest: Annotated[float, Bounds(gt=0, le=1)] = 0.9
    kernel: Count = 5
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: {self.kernel} pixels have no middle: give an odd number")


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer the attacks."""
    yield Component(
        "universal",
        f"{_HERE}.universal:Universal",
        UniversalOptions,
        "one perturbation for all samples, learned from training samples",
        "Shafahi et al. 2020, Universal Adversarial Training, arXiv:1811.11304",
        {"epochs": 2, "samples": 16, "batch_size": 8},
        traits=Traits(needs={"norm-ball": "one perturbation for all samples is bounded by a norm alone"}),
    )
    yield Component(
        "transferable",
        f"{_HERE}.transferable:Transferable",
        TransferableOptions,
        "gradient ascent with momentum, input diversity and smoothed gradients, on one or several models",
        "Xie et al. 2019, arXiv:1803.06978; Dong et al. 2018 and 2019, arXiv:1710.06081, 1904.02884",
        {"steps": 3},
        traits=Traits(
            excludes={
                "mixtures": "it needs one label for each sample, and a mixture has several",
                "parameters": "it moves the values of inputs: use in-parameters, grid or worst-of-k",
            }
        ),
    )
