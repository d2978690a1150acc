"""The other rows of SPROUT's Table 1: robust training as vicinity risk minimisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import (
    Component,
    MethodOptions,
    NonNegative,
    Positive,
    Traits,
    Use,
    hookimpl,
    use,
)

_HERE = "robustplug_vrm"
_IGNORED = {"ignores-target": "the loss would ignore the labels that it returns"}
_MOVES = {"moves": "the virtual sample would equal the clean one: use vicinity gaussian, or a perturbation"}
_MIXUP = "Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412"
_STABILITY = "Zheng et al. 2016, Stability Training, arXiv:1604.04326"
_BILATERAL = "Wang and Zhang 2019, Bilateral Adversarial Training, arXiv:1811.10716"
_INTERPOLATED = "Lamb et al. 2019, Interpolated Adversarial Training, arXiv:1906.06784"
_SEVERAL = "it needs one class for each sample, and a mixture has several"
_NOT_SINGLE = "a mixture has no single clean sample to multiply with"


@dataclass(frozen=True)
class GaussianOptions:
    """Options of `gaussian`.

    Attributes:
        sigma: Δ, standard deviation of the noise, in units of the input range.
        inner: vicinity that samples are drawn from first; it also defines the legal perturbations.
    """

    sigma: NonNegative = 0.1
    inner: Annotated[Use, "vicinity"] = use("linf")


@dataclass(frozen=True)
class MixupOptions:
    """Options of `mixup` and `cutmix`.

    Attributes:
        a: parameter of λ ~ Beta(a, a), drawn once for each batch; 0 turns mixing off.
        inner: vicinity that samples are drawn from first; it also defines the legal perturbations.
    """

    a: NonNegative = 1.0
    inner: Annotated[Use, "vicinity"] = use("linf")


@dataclass(frozen=True)
class ProductOptions:
    """Options of `product`.

    Attributes:
        weight: exponent of the prediction at the virtual sample.
    """

    weight: NonNegative = 1.0


@dataclass(frozen=True)
class BilateralOptions:
    """Options of `bilateral`.

    Attributes:
        ratio: share of the true class over the largest share of another class.
        gamma: γ, weight of the likeliest wrong class, in nats.
    """

    ratio: Positive = 9.0
    gamma: Positive = 0.01


@dataclass(frozen=True)
class BilateralTrainingOptions(MethodOptions):
    """Options of the method `bilateral`: the slots, with the input and the label adversary."""

    perturbation: Use = use("pgd", steps=1, step_ratio=1.0, target="runner-up")
    label_map: Use = use("bilateral")


@dataclass(frozen=True)
class StabilityOptions(MethodOptions):
    """Options of `stability`.

    Attributes:
        alpha: α, weight of the divergence between the predictions at a sample and at its noisy copy.
    """

    alpha: NonNegative = 1.0
    vicinity: Use = use("gaussian")
    label_map: Use = use("stability")


@dataclass(frozen=True)
class InterpolatedOptions(MethodOptions):
    """Options of `interpolated`.

    Attributes:
        a: parameter of λ ~ Beta(a, a), drawn once for the clean and once for the attacked samples.
    """

    a: Positive = 1.0
    perturbation: Use = use("pgd", steps=7)


_AROUND = frozenset({"draws-around"})
_PLAIN = Traits(gives=_AROUND | {"plain"})


def _gaussian_traits(options: GaussianOptions) -> Traits:
    return Traits(_AROUND) if options.sigma else _PLAIN


def _mixup_traits(options: MixupOptions) -> Traits:
    again = {"mixtures": "the inner vicinity already mixes samples"}
    return Traits(_AROUND | {"mixtures"}, excludes=again) if options.a else _PLAIN


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the vicinities that draw samples."""
    yield Component(
        "gaussian",
        f"{_HERE}.vicinities:Gaussian",
        GaussianOptions,
        "each sample plus Gaussian noise, without clipping",
        "Zantedeschi et al. 2017, arXiv:1707.06728",
        traits=_gaussian_traits,
    )
    yield Component(
        "mixup",
        f"{_HERE}.vicinities:Mixup",
        MixupOptions,
        "convex combinations of two samples and of their labels",
        _MIXUP,
        traits=_mixup_traits,
    )
    yield Component(
        "cutmix",
        f"{_HERE}.vicinities:CutMix",
        MixupOptions,
        "images with a box of another one, and labels mixed by area",
        "Yun et al. 2019, CutMix, arXiv:1905.04899",
        traits=_mixup_traits,
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label maps."""
    yield Component(
        "bilateral",
        f"{_HERE}.bilateral:BilateralLabels",
        BilateralOptions,
        "the label adversary in closed form: the least likely class gets most of what the true one loses",
        _BILATERAL,
        traits=Traits(
            frozenset({"rows"}), excludes={"mixtures": _SEVERAL, "mixed-views": _SEVERAL, **_IGNORED}
        ),
    )
    yield Component(
        "stability",
        f"{_HERE}.stability:StableLabels",
        summary="the label for clean views, the prediction at the clean sample for all others",
        paper=_STABILITY,
        traits=Traits(
            gives=frozenset({"predictions"}),
            needs={"clean-view": "without a clean view the model would learn nothing from the true labels"},
            excludes={"mixtures": "a mixture has no single clean sample to agree with", **_IGNORED},
        ),
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the output map of stability training in SPROUT's Table 1."""
    yield Component(
        "product",
        f"{_HERE}.stability:Product",
        ProductOptions,
        "log g with g = f(x) ∘ f(x')^weight, the product of the predictions at a sample and a virtual one",
        _STABILITY,
        traits=Traits(
            gives=frozenset({"log-g"}),
            needs=_MOVES,
            excludes={"mixtures": _NOT_SINGLE, "mixed-views": _NOT_SINGLE},
        ),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the generalised cross entropy for output maps that return log g."""
    yield Component(
        "log-likelihood",
        f"{_HERE}.stability:LogLikelihood",
        summary="−Σ h · log g, for output maps that return log g",
        paper="Cheng et al. 2021, Self-Progressing Robust Training, arXiv:2012.11769, Eq. 4",
        traits=Traits(needs={"log-g": 'the output map must return log g, as "product" does, not logits'}),
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer the rows that are more than a choice of slots."""
    yield Component(
        "bilateral",
        f"{_HERE}.bilateral:Bilateral",
        BilateralTrainingOptions,
        "adversarial training towards the most confusing class, with adversarial labels",
        _BILATERAL,
    )
    yield Component(
        "stability",
        f"{_HERE}.stability:Stability",
        StabilityOptions,
        "cross entropy plus the divergence of the predictions at a sample and at its noisy copy",
        _STABILITY,
        traits=Traits(gives=frozenset({"clean-view"}), needs=_MOVES),
    )
    yield Component(
        "interpolated",
        f"{_HERE}.interpolated:Interpolated",
        InterpolatedOptions,
        "mixup of clean samples and of attacked samples, each with half the weight",
        _INTERPOLATED,
        {"perturbation": {"steps": 2}},
        traits=Traits(
            gives=frozenset({"mixed-views"}),
            excludes={"mixtures": "it mixes the samples itself, after the attack"},
        ),
    )
