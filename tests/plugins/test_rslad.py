"""RSLAD, ARD and AdaAD against a transcription of their objectives in plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import View, stream
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain
from robustplug.testing.bench import SEED
from robustplug_rslad.method import Rslad

from ..training.runs import tiny

TEACHER = {"use": "small-cnn", "width": 2, "hidden": 4}
EPS, SIZE, STEPS = 8 / 255, 2 / 255, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "rslad": {},
    "rslad of another weight": {"alpha": 0.25},
    "ard": {"variant": "ard"},
    "ard with clean samples": {"variant": "ard", "alpha": 0.5, "temperature": 4.0},
    "adaad": {"variant": "adaad"},
    "adaad with clean samples": {"variant": "adaad", "alpha": 0.5},
}


def teacher_of(made: Bench) -> nn.Module:
    assert isinstance(made.method, Rslad)
    return made.method.teacher


def rslad(**options: Any) -> Bench:
    """Return a bench whose teacher has weights that predict more than one class."""
    options = {"perturbation": {"steps": STEPS}, "teacher": TEACHER, **options}
    made = Bench(Subject("method", "rslad", options), toy_plain)
    with torch.no_grad():
        rng = stream(1, "teacher")
        for weight in teacher_of(made).parameters():
            weight.add_(0.3 * torch.empty_like(weight).normal_(generator=rng))
    return made


def divergence(teacher: Tensor, student: Tensor, t: float) -> Tensor:
    """Return t² KL(softmax(teacher/t) ‖ softmax(student/t)), its sum over the batch."""
    log_p, log_q = (teacher / t).log_softmax(1), (student / t).log_softmax(1)
    total: Tensor = t**2 * (log_p.exp() * (log_p - log_q)).sum()
    return total


def ascended(
    student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, start: Tensor, name: str
) -> Tensor:
    """Return x' of the paper of this name."""
    moved, at_clean = start, teacher(x).detach()
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_()
        if name.startswith("ard"):
            loss = F.cross_entropy(student(moved), y, reduction="sum")
        elif name.startswith("adaad"):
            loss = divergence(teacher(moved), student(moved), 1.0)
        else:
            loss = divergence(at_clean, student(moved), 1.0)
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = (moved.detach() + SIZE * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return moved


@pytest.mark.parametrize("name", VARIANTS)
def test_perturbed_samples_loss_and_gradients_are_those_of_the_papers(name: str) -> None:
    made = rslad(**VARIANTS[name])
    student, teacher, o = made.model, teacher_of(made), made.method.options
    step, vicinity = made.step(made.batch()), made.method.vicinity
    x, y = step.batch.x, step.batch.y
    rng = stream(SEED, "train", 0)
    if name.startswith("ard"):
        start = vicinity.random_point(x, torch.full((len(x),), EPS), rng)
    else:
        start = x + 0.001 * torch.empty_like(x).normal_(generator=rng)
        start = start.clamp(x - EPS, x + EPS).clamp(0, 1)
    expected = ascended(student, teacher, x, y, start, name)
    views = made.views(step)
    torch.testing.assert_close(views[-1].x, expected, atol=1e-6, rtol=0)

    at = expected if name.startswith("adaad") else x
    loss = o.alpha * divergence(teacher(at).detach(), student(expected), o.temperature)
    clean = divergence(teacher(x).detach(), student(x), 1.0)
    if name.startswith("ard"):
        clean = F.cross_entropy(student(x), y, reduction="sum")
    loss = (loss + (1 - o.alpha) * clean) / len(x)
    total = step.total(views)
    # At τ = 30 the divergence is the small difference of numbers near 1, in float32; its gradient is not.
    torch.testing.assert_close(total, loss, atol=1e-6, rtol=1e-2 if o.temperature == 30 else 1e-4)
    weights = list(student.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(total, weights), torch.autograd.grad(loss, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)
    assert all(weight.grad is None for weight in teacher.parameters())


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({}, (STEPS + 1 + 2, STEPS + 2)),
        ({"variant": "ard"}, (STEPS + 1 + 1, STEPS + 1)),
        ({"variant": "ard", "alpha": 0.5}, (STEPS + 1 + 2, STEPS + 2)),
        ({"variant": "adaad"}, (2 * STEPS + 1 + 1, 2 * STEPS + 1)),
        ({"variant": "adaad", "alpha": 0.5}, (2 * STEPS + 2 + 2, 2 * STEPS + 2)),
        (
            {"variant": "adaad", "perturbation": {"steps": STEPS, "loss": {"use": "ce"}}},
            (STEPS + 1 + 1, STEPS + 1),
        ),
        ({"asked_at": "perturbed", "alpha": 0, "clean": "label"}, (2 * STEPS + 1 + 2, 2 * STEPS + 2)),
    ],
)
def test_passes_through_the_teacher_count(options: dict[str, Any], cost: tuple[int, int]) -> None:
    made = rslad(**options)
    step = made.step(made.batch())
    made.update(step)
    rows = len(step.batch)
    assert tuple(made.method.cost()) == cost
    assert (step.meter.forwards, step.meter.backwards) == (cost[0] * rows, cost[1] * rows)


def test_agreement_is_that_at_the_perturbed_samples() -> None:
    made = rslad()
    step, rng = made.step(made.batch()), stream(2, "logits")
    logits, rows = (torch.empty(len(step.batch), 3).normal_(generator=rng) for _ in range(2))
    view = View.of(step.batch, "adv", info={"teacher": rows.softmax(1), "temperature": 1.0})
    for other in (view.replace(role="clean"), view.replace(x=view.x.clone().requires_grad_())):
        made.method.loss(step, other, logits, step.target(other))
        assert not made.method.mechanism(step, [view])["agreement"].any()
    made.method.loss(step, view, logits, step.target(view))
    share = float((logits.argmax(1) == rows.argmax(1)).float().mean())
    assert 0 < share < 1
    assert made.method.mechanism(step, [view])["agreement"].tolist() == [share]


def test_awp_stands_around_it() -> None:
    inner = {"use": "rslad", "teacher": TEACHER, "perturbation": {"steps": 2}, "variant": "adaad"}
    made = Bench(Subject("method", "awp", {"inner": inner}), toy_plain)
    step = made.step(made.batch())
    views: Any = made.update(step)
    rows, declared = len(step.batch), made.method.cost()
    assert (step.meter.forwards, step.meter.backwards) == (declared[0] * rows, declared[1] * rows)
    assert made.method.mechanism(step, views).keys() == {"moved", "agreement", "weights"}


def test_its_slots_are_refused_where_no_teacher_is_asked() -> None:
    for slot in ("label_map", "loss"):
        with pytest.raises(RecipeError, match=f"method.{slot}(.|\n)*use it in method rslad"):
            recipe_from_mapping(tiny() | {"method": {"use": "pgd-at", slot: {"use": "rslad"}}})


def test_a_student_learns_what_its_teacher_knows(tmp_path: Path) -> None:
    teacher = robustplug.train(tiny(train={"epochs": 6}), out=tmp_path / "teacher")
    method = {"use": "rslad", "teacher": {"from": str(teacher.folder)}, "perturbation": {"steps": 1}}
    recipe = tiny(train={"epochs": 6}) | {"method": method}
    student = robustplug.train(recipe, out=tmp_path / "student")
    assert student.history[-1].train["mechanism/agreement"] > student.history[0].train["mechanism/agreement"]
    assert student.history[-1].train.keys() >= {"accuracy/clean", "accuracy/adv"}
    assert student.result.meta["training"]["mechanism"].keys() == {"moved", "agreement"}
    assert student.model is not None


def test_views_without_a_teacher_have_labels() -> None:
    made = rslad()
    step = made.step(made.batch())
    view = View.of(step.batch)
    assert torch.equal(step.target(view), step.batch.y)
    expected = F.cross_entropy(made.model(step.batch.x), step.batch.y, reduction="none")
    torch.testing.assert_close(step.objective(view), expected)
