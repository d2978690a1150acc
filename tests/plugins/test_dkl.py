"""DKL and IKL against a transcription of the losses of Cui et al. 2023 over all pairs of classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import robustplug
from robustplug.api import RecipeError, kl_divergence, stream
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_dkl.method import weighted_squares

from ..training.runs import tiny

ATTACK = {"steps": 2, "start": "uniform"}


def dkl(**options: Any) -> Bench:
    return Bench(Subject("method", "dkl", {"perturbation": ATTACK, **options}), toy_plain)


def squares_by_hand(clean: Tensor, moved: Tensor, weights: Tensor) -> Tensor:
    m, n = (z[:, :, None] - z[:, None, :] for z in (clean, moved))
    return 0.25 * (weights[:, :, None] * weights[:, None, :] * (m - n) ** 2).sum((1, 2))


def logits(rows: int = 7, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = stream(0, "logits")
    drawn = 3 * torch.randn(2, rows, classes, generator=rng, dtype=torch.float64)
    return drawn[0].requires_grad_(), drawn[1].requires_grad_()


def test_half_a_variance_is_the_sum_over_all_pairs() -> None:
    clean, moved = logits()
    weights = torch.rand(7, 4, generator=stream(1, "w"), dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    found, expected = weighted_squares(clean - moved, weights), squares_by_hand(clean, moved, weights)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(x.sum(), (clean, moved)) for x in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_decoupled_gradient_is_that_of_the_divergence() -> None:
    clean, moved = logits()
    s = clean.softmax(1).detach()
    parts = weighted_squares(clean - moved.detach(), s) - (s * F.log_softmax(moved, 1)).sum(1)
    expected = kl_divergence(moved.float(), clean.float().softmax(1))
    for a, b in zip(
        torch.autograd.grad(parts.sum(), (clean, moved)),
        torch.autograd.grad(expected.sum(), (clean, moved)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_loss_and_gradients_are_those_of_the_transcription() -> None:
    made = dkl(loss={"mse_weight": 3.0, "entropy_weight": 2.0})
    drawn = torch.rand(3, 3, generator=stream(2, "w")) + 0.1
    made.method.state.get_buffer("class_weights").copy_(drawn / drawn.sum(1, keepdim=True))
    twin = toy_plain(made.task.info)
    twin.load_state_dict(made.model.state_dict())
    step = made.step(made.batch())
    views = made.views(step)
    total = step.total(views)
    step.backward(total)
    x, y, moved = step.batch.x, step.batch.y, views[1].x
    clean, there = twin(x), twin(moved)
    squares = squares_by_hand(clean, there, made.method.state.get_buffer("class_weights")[y])
    entropy = -(clean.softmax(1).detach() * F.log_softmax(there, 1)).sum(1)
    expected = F.cross_entropy(clean, y) + (3 * squares + 2 * entropy).mean()
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in made.model.named_parameters():
        torch.testing.assert_close(parameter.grad, twin.get_parameter(name).grad, atol=1e-6, rtol=1e-4)


def test_class_weights_are_the_class_means_of_the_epoch_before() -> None:
    made = dkl()
    expected, before = torch.zeros(3, 3), made.method.state.get_buffer("class_weights").clone()
    assert torch.equal(before, torch.full((3, 3), 1 / 3))
    for step in made.steps(2):
        with torch.no_grad():
            tempered = (made.model(step.batch.x) / 4).softmax(1)
        if step.progress.epoch == 0:
            expected += F.one_hot(step.batch.y, 3).float().t() @ tempered
            used = before
        else:
            used = expected / expected.sum(1, keepdim=True)
        views = made.update(step)
        torch.testing.assert_close(views[1].info["class_weights"], used[step.batch.y])


@pytest.mark.parametrize("wrapped", [False, True])
def test_noting_the_predictions_costs_no_forward(wrapped: bool) -> None:
    table: dict[str, Any] = {"use": "dkl", "perturbation": ATTACK}
    made = Bench(Subject("method", "awp", {"inner": table}), toy_plain) if wrapped else dkl()
    step = made.step(made.batch())
    made.update(step)
    rows = len(step.batch)
    assert (step.meter.forwards / rows, step.meter.backwards / rows) == tuple(made.method.cost())


def test_gradients_are_finite_where_probabilities_underflow() -> None:
    made = dkl()
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(100)
    step = made.step(made.batch())
    views = made.views(step)
    assert float(made.model(step.batch.x).detach().softmax(1).min()) == 0
    step.backward(step.total(views))
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.model.parameters())


def method(**table: Any) -> dict[str, Any]:
    return {**tiny("dkl"), "method": table}


def test_the_loss_stands_in_the_place_of_trades_loss_alone(tmp_path: Any) -> None:
    recipe = method(use="trades", beta=1, loss={"use": "dkl"}, perturbation=ATTACK)
    trained = robustplug.train(recipe, out=tmp_path / "run")
    assert trained.history[-1].train["squares"] > 0
    with pytest.raises(RecipeError, match="it compares with the clean prediction"):
        recipe_from_mapping(method(use="pgd-at", loss={"use": "dkl"}))
