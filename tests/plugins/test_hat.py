"""HAT against a transcription of its loss in plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import stream
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain
from robustplug.testing.bench import SEED
from robustplug_hat.method import Hat

from ..training.runs import MODEL, tiny

HELPER = {"use": "small-cnn", "width": 2, "hidden": 4}
EPS, SIZE, STEPS = 8 / 255, 2 / 255, 3


def helper_of(made: Bench) -> nn.Module:
    assert isinstance(made.method, Hat)
    return made.method.helper


def hat(**options: Any) -> Bench:
    """Return a bench whose standard network predicts more than one class."""
    options = {"perturbation": {"steps": STEPS}, "helper": HELPER, **options}
    made = Bench(Subject("method", "hat", options), toy_plain)
    with torch.no_grad():
        rng = stream(1, "helper")
        for weight in helper_of(made).parameters():
            weight.add_(0.3 * torch.empty_like(weight).normal_(generator=rng))
    return made


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """Return KL(softmax(clean) ‖ softmax(moved)), its sum over the batch."""
    log_p, log_q = clean.log_softmax(1), moved.log_softmax(1)
    total: Tensor = (log_p.exp() * (log_p - log_q)).sum()
    return total


@pytest.mark.parametrize("reach", [2.0, 3.5])
def test_helper_examples_loss_and_gradients_are_those_of_the_paper(reach: float) -> None:
    made = hat(beta=3.0, gamma=0.25, reach=reach)
    model, step = made.model, made.step(made.batch())
    x, y = step.batch.x, step.batch.y
    noise = torch.empty_like(x).normal_(generator=stream(SEED, "train", 0))
    moved, fixed = (x + 0.001 * noise).clamp(x - EPS, x + EPS).clamp(0, 1), model(x).detach()
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(fixed, model(moved)), moved)
        moved = (moved.detach() + SIZE * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    labels = helper_of(made)(moved).argmax(1)
    far = (x + reach * (moved - x)).clamp(0, 1)
    views = made.views(step)
    for view, expected in zip(views, (x, moved, far), strict=True):
        torch.testing.assert_close(view.x, expected, atol=1e-6, rtol=0)
    assert torch.equal(views[2].y, labels)
    assert not torch.equal(labels, y)

    loss = F.cross_entropy(model(x), y) + 3.0 * divergence(model(x), model(moved)) / len(x)
    loss = loss + 0.25 * F.cross_entropy(model(far), labels)
    total, weights = step.total(views), list(model.parameters())
    torch.testing.assert_close(total, loss, atol=1e-6, rtol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(total, weights), torch.autograd.grad(loss, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)
    assert all(weight.grad is None for weight in helper_of(made).parameters())


def test_helper_examples_do_not_count_as_clean() -> None:
    made = hat()
    step = made.step(made.batch())
    views = made.update(step)
    assert [(view.role, view.kind) for view in views] == [
        ("clean", "clean"),
        ("adv", "adv"),
        ("helper", "clean"),
    ]
    assert {"accuracy/clean", "accuracy/adv", "accuracy/helper"} <= step.logged.keys()
    again = hat()
    right = again.model(step.batch.x).argmax(1) == step.batch.y
    helped = again.model(views[2].x).argmax(1) == views[2].y
    assert float(step.logged["accuracy/clean"]) == pytest.approx(float(right.float().mean()))
    assert float(step.logged["accuracy/helper"]) == pytest.approx(float(helped.float().mean()))
    assert float(right.float().mean()) != float(helped.float().mean())


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({}, (1 + STEPS + 1 + 3, STEPS + 3)),
        ({"gamma": 0}, (1 + STEPS + 2, STEPS + 2)),
        ({"label_map": {"use": "one-hot"}, "loss": {"use": "ce"}}, (STEPS + 1 + 3, STEPS + 3)),
    ],
    ids=["TRADES", "no helper examples", "cross entropy"],
)
def test_passes_through_the_helper_network_count(options: dict[str, Any], cost: tuple[int, int]) -> None:
    made = hat(**options)
    step = made.step(made.batch())
    made.update(step)
    rows = len(step.batch)
    assert (step.meter.forwards, step.meter.backwards) == (cost[0] * rows, cost[1] * rows)
    if "label_map" not in options:
        assert tuple(made.method.cost()) == cost


def test_it_needs_a_perturbation_and_single_classes() -> None:
    for changes, reason in (
        ({"perturbation": {"use": "none"}}, "helper examples extend a perturbation"),
        ({"vicinity": {"use": "mixup"}}, "one class"),
    ):
        with pytest.raises(RecipeError, match=reason):
            recipe_from_mapping(tiny() | {"method": {"use": "hat", "helper": MODEL, **changes}})


def test_a_run_with_a_standard_network(tmp_path: Path) -> None:
    standard = robustplug.train(tiny(train={"epochs": 6}), out=tmp_path / "standard")
    method = {"use": "hat", "helper": {"from": str(standard.folder)}, "perturbation": {"steps": 1}}
    trained = robustplug.train(tiny(train={"epochs": 6}) | {"method": method}, out=tmp_path / "run")
    first, last = trained.history[0].train, trained.history[-1].train
    assert last["accuracy/helper"] > first["accuracy/helper"]
    assert last["accuracy/clean"] > first["accuracy/clean"]
    assert trained.result.meta["training"]["mechanism"]["helper"] > 0
