"""Built-in perturbation generators: their options and declarations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ...api import Bounds, Component, Count, NonNegative, Positive, Traits, UnitInterval, Use, use

Start = Literal["zero", "uniform", "normal"]


@dataclass(frozen=True)
class PgdOptions:
    """Options of `pgd`.

    Attributes:
        steps: number of gradient steps.
        step_size: step size in units of the input range; None for 2.5 · radius / steps, per sample.
        step_ratio: step size as a multiple of each sample's radius; if both are given, the larger one counts.
        start: first point: "zero" (the sample), "uniform" (in the ball) or "normal" (start_scale · N(0, 1)).
        start_scale: standard deviation of the normal start (TRADES: 0.001).
        restarts: number of starts; the best iterate of all of them is returned.
        keep: "last" iterate, or "best" iterate by success, then loss (one more forward per restart).
        target: "none" for untargeted, or the wrong class to target: "random", "runner-up", "least-likely".
        batchnorm: mode of the model during the attack.
        loss: loss against the true labels that replaces the method's own objective.
    """

    steps: Count = 10
    step_size: Positive | None = None
    step_ratio: Positive | None = None
    start: Start = "uniform"
    start_scale: Positive = 0.001
    restarts: Count = 1
    keep: Literal["last", "best"] = "last"
    target: Literal["none", "random", "runner-up", "least-likely"] = "none"
    batchnorm: Literal["eval", "train"] = "eval"
    loss: Use | None = None

    def __post_init__(self) -> None:
        if self.restarts > 1 and self.start == "zero":
            raise ValueError(
                'restarts above 1 repeat the same attack when start = "zero"; use start = "uniform"'
            )


@dataclass(frozen=True)
class FgsmOptions:
    """Options of `fgsm`.

    Attributes:
        start: first point: "zero" (the sample) or "uniform" (in the ball).
        step_ratio: step size as a multiple of the radius (Fast AT: 1.25).
        batchnorm: mode of the model during the attack.
        loss: loss against the true labels that replaces the method's own objective.
    """

    start: Literal["zero", "uniform"] = "zero"
    step_ratio: Positive = 1.0
    batchnorm: Literal["eval", "train"] = "eval"
    loss: Use | None = None


@dataclass(frozen=True)
class NoiseOptions:
    """Options of `noise`.

    Attributes:
        scale: radius of the noise, as a fraction of each sample's radius.
    """

    scale: UnitInterval = 1.0


@dataclass(frozen=True)
class ApgdOptions:
    """Options of `apgd-ce` and `apgd-dlr`.

    Attributes:
        steps: number of gradient steps.
        restarts: number of random starts; the best iterate of all of them is returned.
    """

    steps: Count = 100
    restarts: Count = 1


@dataclass(frozen=True)
class ApgdOnLossOptions(ApgdOptions):
    """Options of `apgd`.

    Attributes:
        steps, restarts: as in `apgd-ce`.
        loss: loss against the true labels to maximise; None for that of the evaluation or the method.
    """

    loss: Use | None = None


@dataclass(frozen=True)
class TargetedApgdOptions:
    """Options of `apgd-t`.

    Attributes:
        steps: number of gradient steps towards each target.
        targets: number of wrong classes to move towards, the most likely first.
    """

    steps: Count = 100
    targets: Count = 9


@dataclass(frozen=True)
class MomentumOptions:
    """Options of `mi-fgsm`.

    Attributes:
        steps: number of gradient steps, each of size radius / steps.
        decay: decay factor of the accumulated gradient.
        loss: loss against the true labels that replaces the method's own objective.
    """

    steps: Count = 10
    decay: NonNegative = 1.0
    loss: Use | None = None


@dataclass(frozen=True)
class SquareOptions:
    """Options of `square`.

    Attributes:
        queries: number of forwards per sample, including the start.
        p_init: fraction of the pixels that the first proposals change.
    """

    queries: Count = 5000
    p_init: UnitInterval = 0.8


@dataclass(frozen=True)
class DeepFoolOptions:
    """Options of `deepfool`.

    Attributes:
        steps: maximum number of linear approximations.
        overshoot: how far each step goes beyond the boundary, as a fraction of its length.
        candidates: number of most likely classes to consider.
    """

    steps: Count = 50
    overshoot: NonNegative = 0.02
    candidates: Annotated[int, Bounds(ge=2)] = 10


@dataclass(frozen=True)
class CarliniWagnerOptions:
    """Options of `cw-l2`.

    Attributes:
        steps: number of Adam steps for each constant.
        search_steps: number of steps of the binary search over the constant.
        lr: learning rate of Adam.
        initial_c: initial weight of the margin relative to the distance.
        kappa: margin required for success.
    """

    steps: Count = 1000
    search_steps: Count = 9
    lr: Positive = 0.01
    initial_c: Positive = 1e-3
    kappa: NonNegative = 0.0


@dataclass(frozen=True)
class EnsembleOptions:
    """Options of `ensemble`.

    Attributes:
        attacks: attacks in their order; each runs on the samples that are still classified correctly.
    """

    attacks: Annotated[tuple[Use, ...], "perturbation"]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks must name at least one attack")


@dataclass(frozen=True)
class EotOptions:
    """Options of `eot`.

    Attributes:
        attack: attack on the mean output.
        draws: number of outputs that are averaged in each pass.
    """

    attack: Annotated[Use, "perturbation"] = use("pgd", steps=40)
    draws: Count = 10


@dataclass(frozen=True)
class BpdaOptions:
    """Options of `bpda`.

    Attributes:
        part: name of the part of the model without a useful gradient, such as "rounding" or "model.1".
        differentiable_as: function whose gradient the part gets.
        attack: attack that follows these gradients.
    """

    part: str
    differentiable_as: Literal["identity"] = "identity"
    attack: Annotated[Use, "perturbation"] = use("pgd", steps=40)


_HERE = "robustplug.builtin.perturbations"
_PGD = f"{_HERE}.pgd"


_IN_BALLS = Traits(needs={"norm-ball": "it searches a whole L∞, L2 or L1 ball, and this set is none"})
_NEAREST = Traits(
    needs={"norm-ball": "it looks for the nearest example, in a whole L∞ or L2 ball, and this set is none"},
    excludes={"l1-ball": "it measures distances in L∞ or L2"},
)
_AT_ORIGIN = frozenset({"starts-at-origin"})
_CLASSES = ("classes",)


_OBFUSCATED = "Athalye et al. 2018, Obfuscated Gradients Give a False Sense of Security, arXiv:1802.00420"
_VALUES = {
    "parameters": "it moves the values of inputs: put it into in-parameters, or use grid or worst-of-k"
}
_MOVES_VALUES = Traits(excludes=_VALUES)


def _momentum_traits(options: MomentumOptions) -> Traits:
    return Traits(gives=_AT_ORIGIN if options.loss is None else frozenset(), excludes=_VALUES)


def _fgsm_traits(options: FgsmOptions) -> Traits:
    first = options.start == "zero" and options.loss is None
    return Traits(gives=_AT_ORIGIN if first else frozenset(), excludes=_VALUES)


def _pgd_traits(options: PgdOptions) -> Traits:
    if options.target != "none":
        why = "a targeted attack needs one label, and a mixture has several"
        return Traits(excludes={"mixtures": why, **_VALUES})
    first = options.start == "zero" and options.loss is None
    return Traits(gives=_AT_ORIGIN if first else frozenset(), excludes=_VALUES)


PERTURBATIONS = (
    Component(
        "none",
        f"{_HERE}.plain:NoPerturbation",
        summary="no perturbation",
        traits=Traits(gives=frozenset({"stays"})),
    ),
    Component("noise", f"{_HERE}.plain:Noise", NoiseOptions, "a uniformly random point of the ball"),
    Component(
        "fgsm",
        f"{_PGD}:Fgsm",
        FgsmOptions,
        "one gradient step, from the sample or a random start",
        "Goodfellow et al. 2015, arXiv:1412.6572; Wong et al. 2020, arXiv:2001.03994",
        traits=_fgsm_traits,
    ),
    Component(
        "pgd",
        f"{_PGD}:Pgd",
        PgdOptions,
        "projected gradient ascent in the norm of the vicinity",
        "Madry et al. 2018, arXiv:1706.06083",
        {"steps": 3},
        traits=_pgd_traits,
    ),
    Component(
        "mi-fgsm",
        f"{_HERE}.momentum:MiFgsm",
        MomentumOptions,
        "gradient ascent with momentum",
        "Dong et al. 2018, arXiv:1710.06081",
        {"steps": 3},
        traits=_momentum_traits,
    ),
    Component(
        "apgd",
        f"{_HERE}.apgd:ApgdOnLoss",
        ApgdOnLossOptions,
        "Auto-PGD on the loss of the evaluation, for any task",
        "Croce & Hein 2020, arXiv:2003.01690",
        {"steps": 5},
    ),
    Component(
        "apgd-ce",
        f"{_HERE}.apgd:Apgd",
        ApgdOptions,
        "Auto-PGD on cross entropy",
        "Croce & Hein 2020, arXiv:2003.01690",
        {"steps": 5},
        for_labels=_CLASSES,
        traits=_MOVES_VALUES,
    ),
    Component(
        "apgd-dlr",
        f"{_HERE}.apgd:apgd_dlr",
        ApgdOptions,
        "Auto-PGD on the difference of logits ratio",
        "Croce & Hein 2020, arXiv:2003.01690",
        {"steps": 5},
        for_labels=_CLASSES,
        traits=_MOVES_VALUES,
    ),
    Component(
        "apgd-t",
        f"{_HERE}.targeted:TargetedApgd",
        TargetedApgdOptions,
        "Auto-PGD towards each of the most likely wrong classes",
        "Croce & Hein 2020, arXiv:2003.01690",
        {"steps": 3, "targets": 2},
        for_labels=_CLASSES,
        traits=_MOVES_VALUES,
    ),
    Component(
        "square",
        f"{_HERE}.square:Square",
        SquareOptions,
        "black-box random search over squares, from logits only",
        "Andriushchenko et al. 2020, arXiv:1912.00049",
        {"queries": 8},
        traits=_IN_BALLS,
        for_labels=_CLASSES,
    ),
    Component(
        "deepfool",
        f"{_HERE}.deepfool:DeepFool",
        DeepFoolOptions,
        "the nearest decision boundary by linear approximation, in the norm of the vicinity",
        "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599",
        {"steps": 5},
        traits=_NEAREST,
        for_labels=_CLASSES,
    ),
    Component(
        "cw-l2",
        f"{_HERE}.carlini_wagner:CarliniWagnerL2",
        CarliniWagnerOptions,
        "the smallest L2 perturbation, by Adam and binary search",
        "Carlini & Wagner 2017, arXiv:1608.04644",
        {"steps": 40, "search_steps": 2, "initial_c": 100.0, "lr": 0.05},
        traits=Traits(needs=_NEAREST.needs),
        for_labels=_CLASSES,
    ),
    Component(
        "ensemble",
        f"{_HERE}.plain:ensemble",
        EnsembleOptions,
        "several attacks in turn, each on the samples that are still classified correctly",
        "",
        {"attacks": [{"use": "fgsm"}, {"use": "noise"}]},
    ),
    Component(
        "eot",
        f"{_HERE}.adaptive:Eot",
        EotOptions,
        "another attack on the mean of several outputs of a random model",
        _OBFUSCATED,
        {"draws": 2, "attack": {"use": "pgd", "steps": 3}},
    ),
    Component(
        "bpda",
        f"{_HERE}.adaptive:Bpda",
        BpdaOptions,
        "another attack, with the gradient of the identity for a part of the model",
        _OBFUSCATED,
        {"part": "1", "attack": {"use": "pgd", "steps": 3}},
    ),
)
