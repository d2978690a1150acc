"""The built-in plugin; it registers its components through the same hooks as every other plugin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from ..api import (
    Bounds,
    Component,
    Decay,
    FractionText,
    NonNegative,
    Positive,
    RunFolder,
    Traits,
    UnitInterval,
    Use,
    hookimpl,
    use,
)

_HERE = "robustplug.builtin"


@dataclass(frozen=True)
class BallOptions:
    """Options of `linf` and `l2`.

    Attributes:
        eps: radius of the ball, in units of the input range.
    """

    eps: NonNegative = 8 / 255


@dataclass(frozen=True)
class L1Options:
    """Options of `l1`.

    Attributes:
        eps: radius of the ball: the largest sum of absolute changes, in units of the input range.
    """

    eps: NonNegative = 12.0


@dataclass(frozen=True)
class SmoothOptions:
    """Options of `smooth`.

    Attributes:
        alpha: weight of the uniform distribution.
    """

    alpha: UnitInterval = 0.1


@dataclass(frozen=True)
class MarginOptions:
    """Options of `margin`.

    Attributes:
        kappa: margins below −kappa count as −kappa; None for no bound.
    """

    kappa: NonNegative | None = None


@dataclass(frozen=True)
class EnsembleOptions:
    """Options of `ensemble`.

    Attributes:
        runs: folders of the other runs, trained on the same task.
    """

    runs: tuple[RunFolder, ...] = ()


@dataclass(frozen=True)
class BitDepthOptions:
    """Options of `bit-depth`.

    Attributes:
        bits: bits of each value, from 1 to 8.
    """

    bits: Annotated[int, Bounds(ge=1, le=8)] = 4


@dataclass(frozen=True)
class LocalOptions:
    """Options of `local`.

    Attributes:
        processes: number of simultaneous runs, each in its own process; with one, the runs take place in the
            process of the study. None for the number of GPUs, or 1 without any.
    """

    processes: Annotated[int, Bounds(ge=1, le=1024)] | None = None


@dataclass(frozen=True)
class SgdOptions:
    """Options of `sgd`.

    Attributes:
        lr: learning rate.
        momentum: momentum of the gradient.
        weight_decay: weight of the L2 regularisation.
        nesterov: whether to use Nesterov momentum.
    """

    lr: Positive = 0.1
    momentum: Decay = 0.9
    weight_decay: NonNegative = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


@dataclass(frozen=True)
class AdamWOptions:
    """Options of `adamw`.

    Attributes:
        lr: learning rate.
        betas: decay rates of the first and second moments.
        weight_decay: decoupled weight decay.
    """

    lr: Positive = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01


@dataclass(frozen=True)
class StepOptions:
    """Options of `step`.

    Attributes:
        milestones: epochs, counted from 0, at which the rate drops, in ascending order.
        gamma: factor of each drop.
    """

    milestones: tuple[NonNegative, ...]
    gamma: Positive = 0.1

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError("milestones must be in ascending order")


@dataclass(frozen=True)
class CyclicOptions:
    """Options of `cyclic`.

    Attributes:
        peak: fraction of the run at which the rate is highest.
    """

    peak: Annotated[float, Bounds(gt=0, lt=1), FractionText()] = 0.5


@dataclass(frozen=True)
class WarmUpOptions:
    """Options of `warm-up`.

    Attributes:
        epochs: number of epochs of the linear rise.
        then: schedule that is multiplied by the rise.
    """

    epochs: NonNegative = 5
    then: Annotated[Use, "schedule"] = use("cosine")


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer norm balls and distribution shifts."""
    from .shifts import SHIFTS

    ball = Traits(gives=frozenset({"plain", "norm-ball", "coordinates"}))
    yield Component(
        "linf", f"{_HERE}.vicinities:Linf", BallOptions, "L∞ ball in the pixel range", traits=ball
    )
    yield Component(
        "l2",
        f"{_HERE}.vicinities:L2",
        BallOptions,
        "L2 ball in the pixel range",
        trial={"eps": 0.5},
        traits=ball,
    )
    yield Component(
        "l1",
        f"{_HERE}.l1:L1",
        L1Options,
        "L1 ball in the pixel range, projected exactly",
        "Croce & Hein 2021, arXiv:2103.01208",
        trial={"eps": 2.0},
        traits=Traits(gives=ball.gives | {"l1-ball"}),
    )
    yield from SHIFTS


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer perturbation generators."""
    from .perturbations import PERTURBATIONS

    return PERTURBATIONS


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer label maps."""
    numbers = Traits(gives=frozenset({"from-labels", "class-numbers"}))
    yield Component("one-hot", f"{_HERE}.maps:OneHot", summary="the label itself", traits=numbers)
    yield Component(
        "smooth",
        f"{_HERE}.maps:Smooth",
        SmoothOptions,
        "label smoothing",
        "Szegedy et al. 2016, arXiv:1512.00567",
        traits=Traits(
            frozenset({"from-labels", "rows"}),
            excludes={"ignores-target": "the loss ignores the smoothed label"},
        ),
        for_labels=("classes",),
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer output maps."""
    own = Traits(gives=frozenset({"own-outputs"}))
    yield Component("identity", f"{_HERE}.maps:Identity", summary="the model's own outputs", traits=own)


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer losses."""
    ignores = Traits(gives=frozenset({"ignores-target"}))
    logits = Traits(excludes={"log-g": "the outputs are already log g; it would normalise them twice"})
    entropy = Traits(frozenset({"cross-entropy"}), excludes=logits.excludes)
    classes: Any = {"for_labels": ("classes",)}
    yield Component("ce", f"{_HERE}.losses:CrossEntropy", summary="cross entropy", traits=entropy, **classes)
    yield Component(
        "kl", f"{_HERE}.losses:KLDivergence", summary="Kullback-Leibler divergence", traits=logits, **classes
    )
    yield Component(
        "margin",
        f"{_HERE}.losses:Margin",
        MarginOptions,
        "logit margin of the strongest wrong class",
        "Carlini & Wagner 2017, arXiv:1608.04644",
        traits=ignores,
        **classes,
    )
    yield Component(
        "dlr",
        f"{_HERE}.losses:DifferenceOfLogitsRatio",
        summary="difference of logits ratio",
        paper="Croce & Hein 2020, arXiv:2003.01690",
        traits=ignores,
        **classes,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer methods."""
    from .methods import METHODS

    return METHODS


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer tasks."""
    from .tasks import TASKS

    return TASKS


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer models."""
    from .models import MODELS

    return MODELS


@hookimpl
def robustplug_optimizers() -> Iterable[Component]:
    """Offer optimizers."""
    from .named import OPTIMIZER

    yield Component("sgd", f"{_HERE}.optimizers:sgd", SgdOptions, "stochastic gradient descent with momentum")
    yield Component("adamw", f"{_HERE}.optimizers:adamw", AdamWOptions, "AdamW", "arXiv:1711.05101")
    yield OPTIMIZER


@hookimpl
def robustplug_schedules() -> Iterable[Component]:
    """Offer learning-rate schedules."""
    from .named import SCHEDULE

    yield Component("constant", f"{_HERE}.optimizers:Constant", summary="constant learning rate")
    yield Component(
        "step", f"{_HERE}.optimizers:StepDecay", StepOptions, "drops at milestones", "", {"milestones": [1]}
    )
    yield Component(
        "cosine", f"{_HERE}.optimizers:Cosine", summary="half a cosine from 1 to 0", paper="arXiv:1608.03983"
    )
    yield Component(
        "cyclic",
        f"{_HERE}.optimizers:Cyclic",
        CyclicOptions,
        "one triangle: a linear rise from 0 to 1, then a linear fall to 0",
        "arXiv:2001.03994",
    )
    yield Component(
        "warm-up", f"{_HERE}.optimizers:warm_up", WarmUpOptions, "a linear warm-up, then another schedule"
    )
    yield SCHEDULE


@hookimpl
def robustplug_measurements() -> Iterable[Component]:
    """Offer measurements."""
    yield Component(
        "input-gradient",
        f"{_HERE}.measurements:InputGradient",
        summary="size of the loss's input gradient, in the dual norm of the threat model",
    )


@hookimpl
def robustplug_wrappers() -> Iterable[Component]:
    """Offer wrappers around the model under test."""
    yield Component(
        "ensemble",
        f"{_HERE}.wrappers:ensemble",
        EnsembleOptions,
        "the mean of the probabilities of the model and those of other runs",
    )
    yield Component(
        "bit-depth",
        f"{_HERE}.wrappers:BitDepth",
        BitDepthOptions,
        "inputs rounded to few bits, without a gradient",
        "Xu et al. 2018, Feature Squeezing, arXiv:1704.01155",
        {"bits": 3},
    )


@hookimpl
def robustplug_launchers() -> Iterable[Component]:
    """Offer launchers."""
    yield Component(
        "local",
        "robustplug.studies.launchers.local:Local",
        LocalOptions,
        "processes of this machine, one for each GPU",
        trial={"processes": 2},
    )


@hookimpl
def robustplug_augmentations() -> Iterable[Component]:
    """Offer augmentations."""
    from .named import AUGMENTATION

    yield AUGMENTATION
