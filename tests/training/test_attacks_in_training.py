"""Attacks by their names as the perturbation of adversarial training and TRADES."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain

from .runs import tiny

CE = {"use": "ce"}
ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"use": "pgd", "steps": 2},
    "targeted": {"use": "pgd", "steps": 2, "target": "random"},
    "runner-up": {"use": "pgd", "steps": 2, "target": "runner-up", "loss": {"use": "margin"}},
    "least-likely": {"use": "pgd", "steps": 2, "target": "least-likely", "start": "zero", "loss": CE},
    "margin": {"use": "pgd", "steps": 2, "loss": {"use": "margin"}},
    "mi-fgsm": {"use": "mi-fgsm", "steps": 2, "loss": CE},
    "apgd-ce": {"use": "apgd-ce", "steps": 3},
    "apgd-dlr": {"use": "apgd-dlr", "steps": 3},
    "apgd-t": {"use": "apgd-t", "steps": 2, "targets": 2},
    "square": {"use": "square", "queries": 4},
    "deepfool": {"use": "deepfool", "steps": 2},
    "early-stopped": {"use": "early-stopped", "steps": 2},
    "ensemble": {"use": "ensemble", "attacks": [{"use": "apgd-ce", "steps": 2}, {"use": "noise"}]},
}
# What the labels of an update may be: class numbers, rows of smoothed ones, mixtures of two.
LABELS: dict[str, dict[str, Any]] = {
    "classes": {},
    "smoothed": {"label_map": {"use": "smooth", "alpha": 0.2}},
    "mixed": {"vicinity": {"use": "mixup", "inner": {"use": "linf", "eps": 0.1}}},
}
TARGETED = {"targeted", "runner-up", "least-likely"}
CASES = [
    (attack, method, labels)
    for attack in ATTACKS
    for method, labels in (
        ("pgd-at", "classes"),
        ("pgd-at", "smoothed"),
        ("pgd-at", "mixed"),
        ("trades", "classes"),
    )
    if not (attack in TARGETED and labels == "mixed")
]


@pytest.mark.parametrize(("attack", "method", "labels"), CASES)
def test_an_attack_moves_the_samples_that_are_trained_on(attack: str, method: str, labels: str) -> None:
    table = {"vicinity": {"use": "linf", "eps": 0.1}, "perturbation": ATTACKS[attack], **LABELS[labels]}
    made = Bench(Subject("method", method, table), toy_plain)
    before = {name: value.clone() for name, value in made.model.named_parameters()}
    step = made.step(made.batch())
    views = made.update(step)
    view = views[-1]
    moved = (view.x - view.origin).abs().flatten(1).amax(1)
    assert float(moved.max()) <= 0.1 + 1e-6
    assert float((moved > 0).float().mean()) > 0.4, "most samples stay"
    assert not view.x.requires_grad
    assert any(not torch.equal(value, before[name]) for name, value in made.model.named_parameters())
    # Labels are those of the task, also where the attack has goals of its own.
    assert torch.equal(view.y, views[0].y)
    if labels == "classes":
        assert torch.equal(view.y, step.batch.y)


@pytest.mark.parametrize(("attack", "sign"), [("pgd", 1), ("margin", 1), ("mi-fgsm", 1), ("apgd-ce", 1)])
def test_an_attack_raises_the_loss_of_the_true_label(attack: str, sign: int) -> None:
    table = {"vicinity": {"use": "linf", "eps": 0.1}, "perturbation": ATTACKS[attack]}
    made = Bench(Subject("method", "pgd-at", table), toy_plain)
    step = made.step(made.batch())
    (view,) = made.views(step)
    made.model.eval()
    with torch.no_grad():
        there, here = step.objective(view), step.objective(view.at_origin())
    assert float((there - here).mean()) * sign > 0


def test_a_targeted_attack_in_training_raises_the_probability_of_its_goal() -> None:
    table = {"vicinity": {"use": "linf", "eps": 0.1}, "perturbation": ATTACKS["least-likely"]}
    for method in ("pgd-at", "trades"):
        made = Bench(Subject("method", method, table), toy_plain)
        step = made.step(made.batch())
        view = made.views(step)[-1]
        made.model.eval()
        with torch.no_grad():
            clean, moved = (made.model(x).softmax(1) for x in (view.origin, view.x))
        away = clean.scatter(1, view.y[:, None], torch.inf)
        goal = away.argmin(1, keepdim=True)
        assert (moved.gather(1, goal) > clean.gather(1, goal)).float().mean() > 0.9


@pytest.mark.parametrize("name", ["mi-fgsm", "fgsm"])
def test_an_attack_that_starts_at_the_sample_needs_a_loss_of_its_own_in_trades(name: str) -> None:
    recipe = tiny("trades")
    recipe["method"] = {"use": "trades", "perturbation": {"use": name}}
    with pytest.raises(RecipeError, match="the divergence has no gradient at the origin"):
        recipe_from_mapping(recipe)
    recipe["method"] = {"use": "trades", "perturbation": {"use": name, "loss": CE}}
    recipe_from_mapping(recipe)


LIBRARIES = {
    "art": {"use": "art:FastGradientMethod"},
    "torchattacks": {"use": "torchattacks:PGD", "steps": 2},
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_an_attack_of_a_library_trains(library: str, method: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    table = {"vicinity": {"use": "linf", "eps": 0.1}, "perturbation": LIBRARIES[library]}
    made = Bench(Subject("method", method, table), toy_plain)
    step = made.step(made.batch())
    view = made.update(step)[-1]
    assert float((view.x - view.origin).abs().max()) > 0.05


def test_a_targeted_attack_refuses_mixtures() -> None:
    recipe = tiny("pgd-at")
    recipe["method"] = {"use": "pgd-at", "perturbation": ATTACKS["targeted"], **LABELS["mixed"]}
    with pytest.raises(RecipeError, match="a targeted attack needs one label"):
        recipe_from_mapping(recipe)
