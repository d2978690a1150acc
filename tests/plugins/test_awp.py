"""AWP against a transcription of Wu et al. 2020, and methods around methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import View, kl_divergence
from robustplug.core.method import nested
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import recipe_to_mapping
from robustplug.subjects.assemble import threat_of
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_awp.method import Awp, worst_move

from ..training.runs import tiny

ATTACK = {"use": "pgd", "steps": 2, "start": "uniform"}


def awp(inner: str, gamma: float = 0.05, **options: Any) -> Bench:
    table = {"gamma": gamma, "inner": {"use": inner, "perturbation": ATTACK, **options}}
    return Bench(Subject("method", "awp", table), toy_plain)


def test_a_move_has_the_size_and_direction_of_the_paper() -> None:
    w, g = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert worst_move(w, g, 0.1).tolist() == [[0.0, 0.5]]
    assert worst_move(w, torch.zeros(1, 2), 0.1).tolist() == [[0.0, 0.0]]


def loss_by_hand(model: nn.Module, x: Tensor, adv: Tensor, y: Tensor, beta: float) -> Tensor:
    clean, moved = model(x), model(adv)
    return F.cross_entropy(clean, y) + beta * kl_divergence(moved, clean.softmax(1)).mean()


def test_gradients_are_those_of_the_transcription() -> None:
    made = awp("trades", gamma=0.05, beta=3.0)
    model = made.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = made.step(made.batch())
    seen: dict[str, Tensor] = {}

    def note(step: Any, views: list[View]) -> None:
        seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        seen["adv"], seen["x"] = views[1].x, views[0].x
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    assert isinstance(made.method, Awp)
    made.method.inner.after_backward = note  # type: ignore[method-assign,assignment]
    made.update(step)
    twin = toy_plain(made.task.info)
    twin.load_state_dict(before)
    y = step.batch.y
    total = loss_by_hand(twin, seen["x"], seen["adv"], y, 3.0)
    names = [name for name, p in twin.named_parameters() if p.dim() > 1]
    layers = [twin.get_parameter(name) for name in names]
    with torch.no_grad():
        for w, g in zip(layers, torch.autograd.grad(total, layers), strict=True):
            w.add_(0.05 * w.norm() / g.norm() * g)
    total = loss_by_hand(twin, seen["x"], seen["adv"], y, 3.0)
    expected = torch.autograd.grad(total, list(twin.parameters()))
    for (name, _), gradient in zip(twin.named_parameters(), expected, strict=True):
        torch.testing.assert_close(seen[name], gradient, atol=1e-7, rtol=1e-5)


def test_the_loss_at_the_moved_weights_is_larger() -> None:
    made = awp("pgd-at")
    step = made.step(made.batch())
    views = made.views(step)
    here = float(step.total(views).detach())
    with made.method.around_loss(step, views):
        there = float(step.total(views).detach())
    assert there > here


def test_costs_are_the_inner_method_s_and_once_more_its_loss() -> None:
    assert tuple(awp("pgd-at").method.cost()) == (2 + 1 + 1, 2 + 1 + 1)
    assert tuple(awp("trades").method.cost()) == (1 + 2 + 2 + 2, 2 + 2 + 2)


def around(inner: dict[str, Any], **changes: Any) -> dict[str, Any]:
    recipe = tiny("awp")
    return {**recipe, "method": {"use": "awp", "inner": inner, **changes}}


def test_the_threat_model_is_that_of_the_inner_method() -> None:
    recipe = recipe_from_mapping(around({"use": "pgd-at", "vicinity": {"use": "l2", "eps": 0.75}}))
    assert threat_of(recipe).name == "l2"
    assert recipe_to_mapping(recipe)["method"]["inner"]["vicinity"] == {"use": "l2", "eps": 0.75}
    twice = recipe_from_mapping(around({"use": "awp", "inner": {"use": "fast-at"}}))
    assert threat_of(twice).name == "linf"


def test_a_wrapper_without_a_method_is_an_error_with_its_place() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({**tiny("awp"), "method": {"use": "awp"}})
    assert "method.inner" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(around({"use": "trades", "perturbation": {"use": "none"}}))
    assert str(caught.value).count("the divergence of a prediction from itself is 0") == 1


def test_a_method_of_this_kind_inside_moves_the_weights_for_both_losses(tmp_path: Path) -> None:
    inner = {"use": "awp", "inner": {"use": "trades", "perturbation": ATTACK}}
    made = Bench(Subject("method", "awp", {"inner": inner}), toy_plain)
    alone = Bench(Subject("method", "awp", {"inner": inner["inner"]}), toy_plain)
    once = made.method.loss_cost()
    assert made.method.cost() == alone.method.cost() + (2 * once.forwards, 2 * once.backwards)
    meta = robustplug.train(around(inner), out=tmp_path / "run").result.meta["training"]
    assert [meta["forwards_per_sample"], meta["backwards_per_sample"]] == [*made.method.cost()]


@pytest.mark.parametrize("inner", ["cat", "sprout", "free-at"])
def test_a_run_with_state_trains_and_evaluates(inner: str, tmp_path: Path) -> None:
    small = {"perturbation": ATTACK} if inner == "cat" else {}
    trained = robustplug.train(around({"use": inner, **small}), out=tmp_path / "run")
    assert trained.result.meta["training"]["mechanism"]["weights"] > 0
    assert trained.result.threat["use"] == "linf"
    again = robustplug.evaluate(tmp_path / "run", attacks=["fgsm"])
    assert again.attacks[0].accuracy == trained.result.attacks[0].accuracy


def test_methods_are_listed_from_the_outside_in() -> None:
    made = Bench(Subject("method", "awp", {"inner": {"use": "awp", "inner": {"use": "cat"}}}))
    assert [type(each).__name__ for each in nested(made.method)] == ["Awp", "Awp", "Cat"]
    assert [name for name, _ in made.method.state.named_buffers()] == ["inner.inner.eps.values"]
