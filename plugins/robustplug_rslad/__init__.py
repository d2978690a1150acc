"""Distillation from a robust teacher: RSLAD, with the losses of ARD and AdaAD as variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from robustplug.api import Component, MethodOptions, Positive, Traits, UnitInterval, Use, hookimpl, use

PAPER = (
    "Zi et al. 2021, Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better, "
    "arXiv:2108.07969"
)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "ard": {
        "alpha": 1.0,
        "temperature": 30.0,
        "clean": "label",
        "perturbation": {
            "use": "pgd",
            "steps": 10,
            "step_size": 2 / 255,
            "start": "uniform",
            "loss": {"use": "ce"},
        },
    },
    "adaad": {"alpha": 1.0, "asked_at": "perturbed"},
}


@dataclass(frozen=True, kw_only=True)
class RsladOptions(MethodOptions):
    """Options of `rslad`.

    Attributes:
        teacher: the robust network that is learned from.
        alpha: α, weight of the perturbed samples; that of the clean ones is 1 − α, and with α = 1 they are
            left out.
        temperature: τ, by which the logits of teacher and student are divided in every divergence between
            them; the divergence is multiplied by τ².
        clean: what is learned at the clean samples: the teacher's prediction, or the label.
        asked_at: where the teacher predicts what is learned at the perturbed samples: at the clean ones, or
            at the perturbed ones, also at every step of the attack.
    """

    teacher: Annotated[Use, "model"]
    alpha: UnitInterval = 5 / 6
    temperature: Positive = 1.0
    clean: Literal["teacher", "label"] = "teacher"
    asked_at: Literal["clean", "perturbed"] = "clean"
    perturbation: Use = use("pgd", steps=10, step_size=2 / 255, start="normal", start_scale=0.001)
    label_map: Use = use("rslad")
    loss: Use = use("rslad")


_NEEDS = {"teacher": "no network predicts what it is for: use it in method rslad"}


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer RSLAD."""
    yield Component(
        "rslad",
        "robustplug_rslad.method:Rslad",
        RsladOptions,
        "learn the predictions of a robust teacher at clean and perturbed samples",
        PAPER,
        {"teacher": {"use": "small-cnn", "width": 2, "hidden": 4}, "perturbation": {"steps": 2}},
        VARIANTS,
        Traits(gives=frozenset({"teacher"})),
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the label map of RSLAD."""
    yield Component(
        "rslad",
        "robustplug_rslad.method:TeacherPrediction",
        summary="the prediction of the method's teacher, or the label where it is not asked",
        paper=PAPER,
        traits=Traits(
            frozenset({"rows"}), _NEEDS, {"ignores-target": "the loss would ignore the teacher's predictions"}
        ),
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss of RSLAD."""
    yield Component(
        "rslad",
        "robustplug_rslad.method:Distillation",
        summary="τ² · KL divergence from the teacher's prediction, both at temperature τ, or cross entropy",
        paper=PAPER,
        traits=Traits(
            needs=_NEEDS,
            excludes={
                "log-g": "the output map returns log g already, and this loss would normalise it again"
            },
        ),
    )
