"""Randomised smoothing: certificates by the votes of a model under noise, and training for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from robustplug.api import (
    Bounds,
    Component,
    Count,
    MethodOptions,
    Natural,
    NonNegative,
    Positive,
    RunFolder,
    Size,
    Use,
    hookimpl,
    use,
)

COHEN = "Cohen et al. 2019, Certified Adversarial Robustness via Randomized Smoothing, arXiv:1902.02918"
YANG = "Yang et al. 2020, Randomized Smoothing of All Shapes and Sizes, arXiv:2002.08118"
SALMAN_2020 = (
    "Salman et al. 2020, Denoised Smoothing: A Provable Defense for Pretrained Classifiers, arXiv:2003.01908"
)

Noise = Literal["gaussian", "uniform"]
Norm = Literal["l2", "linf", "l1"]


@dataclass(frozen=True)
class NoiseOptions:
    """Options of what draws noise.

    Attributes:
        sigma: σ, standard deviation of the noise, in units of the input range.
        noise: distribution of the noise; "uniform" on [−√3 σ, √3 σ] certifies L1 alone.
    """

    sigma: Positive = 0.25
    noise: Noise = "gaussian"


@dataclass(frozen=True)
class SmoothingOptions(NoiseOptions):
    """Options of `randomised-smoothing`.

    Attributes:
        n0: draws that choose the class.
        n: draws that bound its probability.
        alpha: α, probability that what is said of one sample is wrong.
        norm: norm of the certified radii. Gaussian noise certifies L2, the radius R; in L1 the same R holds,
            and in L∞ R divided by √d, for inputs of d numbers.
        radii: further radii at which the certified accuracy is stated.
        batch: draws in one call of the model; None for as many as the size of an input suggests.

    Raises:
        ValueError: uniform noise is to certify another norm than L1, or n is too small for a radius.
    """

    n0: Count = 100
    n: Count = 100_000
    alpha: Annotated[float, Bounds(gt=0, lt=0.5)] = 0.001
    norm: Norm = "l2"
    radii: tuple[NonNegative, ...] = ()
    batch: Count | None = None

    def __post_init__(self) -> None:
        if self.noise == "uniform" and self.norm != "l1":
            raise ValueError('noise "uniform" certifies l1 alone: set norm = "l1", or noise = "gaussian"')


@dataclass(frozen=True)
class SmoothedOptions(NoiseOptions):
    """Options of the wrapper `smoothed`.

    Attributes:
        draws: draws of the noise, the same for every input.
        votes: whether the draws vote, which has no gradient; otherwise their probabilities are averaged.
    """

    draws: Count = 100
    votes: bool = False


@dataclass(frozen=True)
class UnderNoiseOptions(MethodOptions):
    """Options of `smooth-adv`: the slots, and the noise.

    Attributes:
        sigma: σ, standard deviation of the Gaussian noise.
        draws: m, noisy copies of each sample.
    """

    sigma: Positive = 0.25
    draws: Count = 2
    vicinity: Use = use("l2", eps=0.25)
    perturbation: Use = use("pgd", steps=10, step_ratio=0.2, start="zero")
    output_map: Use = use("mean-under-noise")


@dataclass(frozen=True)
class ConsistencyOptions(UnderNoiseOptions):
    """Options of `consistency`.

    Attributes:
        weight: λ, weight of the divergence from the mean prediction.
        entropy: η, weight of the entropy of the mean prediction.
    """

    weight: NonNegative = 10.0
    entropy: NonNegative = 0.5
    perturbation: Use = use("none")


@dataclass(frozen=True)
class MacerOptions(UnderNoiseOptions):
    """Options of `macer`.

    Attributes:
        weight: λ, weight of the certified radius.
        gamma: γ, difference of the two quantiles up to which the radius is to grow.
        beta: β, factor of the logits in the radius.
    """

    draws: Count = 16
    weight: NonNegative = 12.0
    gamma: Positive = 8.0
    beta: Positive = 16.0
    perturbation: Use = use("none")


@dataclass(frozen=True)
class SmoothMixOptions(UnderNoiseOptions):
    """Options of `smooth-mix`.

    Attributes:
        weight: η, weight of the loss of the mixtures.
        warmup: number of first epochs over which η rises to its value.
    """

    draws: Count = 4
    weight: NonNegative = 5.0
    warmup: Natural = 10
    vicinity: Use = use("l2", eps=2.0)
    perturbation: Use = use("pgd", steps=8, step_ratio=0.125, start="zero")


@dataclass(frozen=True)
class DenoiserOptions(MethodOptions):
    """Options of `denoiser`.

    Attributes:
        sigma: σ, standard deviation of the Gaussian noise.
        objective: "mse", the distance from the clean image, or "stability", the model's own prediction at it.
        depth: number of convolutions of the denoiser.
        width: channels between them.
    """

    sigma: Positive = 0.25
    objective: Literal["mse", "stability"] = "mse"
    depth: Annotated[int, Bounds(ge=2, le=100)] = 17
    width: Size = 64
    vicinity: Use = use("l2", eps=0.25)
    output_map: Use = use("behind-denoiser")


@dataclass(frozen=True)
class DenoisedOptions:
    """Options of the wrapper `denoised`.

    Attributes:
        run: folder of a run of the method `denoiser`, on images of the same channels.
    """

    run: RunFolder


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the prediction under the noise of these methods, which their attacks ascend."""
    yield Component(
        "mean-under-noise",
        "robustplug_smoothing.methods:MeanUnderNoise",
        summary="the mean of the predictions under the noise of a view",
        paper="Salman et al. 2019, arXiv:1906.04584",
    )
    yield Component(
        "behind-denoiser",
        "robustplug_smoothing.denoising:BehindDenoiser",
        summary="the outputs behind the denoiser that the method trains",
        paper=SALMAN_2020,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer training for votes under noise."""
    here = "robustplug_smoothing.methods"
    yield Component(
        "smooth-adv",
        f"{here}:SmoothAdv",
        UnderNoiseOptions,
        "adversarial training of the smoothed classifier",
        "Salman et al. 2019, Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers, "
        "arXiv:1906.04584",
        {"perturbation": {"steps": 2}},
    )
    yield Component(
        "consistency",
        f"{here}:Consistency",
        ConsistencyOptions,
        "predictions under noise agree with their mean",
        "Jeong and Shin 2020, Consistency Regularization for Certified Robustness of Smoothed Classifiers, "
        "arXiv:2006.04062",
    )
    yield Component(
        "macer",
        f"{here}:Macer",
        MacerOptions,
        "a hinge on the certified radius of each sample",
        "Zhai et al. 2020, MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius, "
        "arXiv:2001.02378",
        {"draws": 3},
    )
    yield Component(
        "smooth-mix",
        f"{here}:SmoothMix",
        SmoothMixOptions,
        "mixtures with adversarial examples of the smoothed classifier have uncertain labels",
        "Jeong et al. 2021, SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified "
        "Robustness, arXiv:2111.09277",
        {"draws": 2, "perturbation": {"steps": 2}},
    )
    yield Component(
        "denoiser",
        "robustplug_smoothing.denoising:Denoiser",
        DenoiserOptions,
        "a denoiser in front of a model that stays as it is",
        SALMAN_2020,
        {"depth": 2, "width": 2},
    )


@hookimpl
def robustplug_measurements() -> Iterable[Component]:
    """Offer the certificate."""
    yield Component(
        "randomised-smoothing",
        "robustplug_smoothing.measurement:Smoothing",
        SmoothingOptions,
        "certified radii of the model that votes under noise",
        COHEN,
        {"sigma": 0.1, "n0": 20, "n": 300, "radii": [0.05]},
    )


@hookimpl
def robustplug_wrappers() -> Iterable[Component]:
    """Offer the smoothed model."""
    yield Component(
        "smoothed",
        "robustplug_smoothing.wrapper:Smoothed",
        SmoothedOptions,
        "the mean of the model's probabilities under noise",
        COHEN,
        {"draws": 8},
    )
    yield Component(
        "denoised",
        "robustplug_smoothing.denoising:denoised",
        DenoisedOptions,
        "the model behind the denoiser of a run",
        SALMAN_2020,
    )
