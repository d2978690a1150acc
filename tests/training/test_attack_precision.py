"""Attacks in half precision: loss-scaled, with float32 steps, and as strong as those in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.calling.stand_ins import Averaged
from robustplug.core.random import isolated
from robustplug.devices import precision
from robustplug.devices.precision import HALVES, HalfPrecision
from robustplug.recipe.errors import RecipeError
from robustplug.training.loop import Loop

from .capturing import Told
from .runs import outcome, tiny

RECIPE = tiny(
    "pgd-at",
    train={"epochs": 1, "batch_size": 16},
    task={"validation": 400, "test": 1300},
    method={"vicinity": {"use": "linf", "eps": 0.1}},
    optimizer={"lr": 0.1},
    validate={"samples": 400, "attack": {"use": "pgd", "steps": 5}},
    evaluate={"samples": 8},
)


def network() -> nn.Module:
    with isolated(1):
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()


def slope(model: nn.Module, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    x = torch.linspace(0, 1, 4 * 64).view(4, 1, 8, 8).requires_grad_()
    output = model(x)
    (gradient,) = torch.autograd.grad(factor * output.square().sum(), x)
    return output, gradient


@pytest.mark.parametrize("name", HALVES)
def test_outputs_and_gradients_are_those_of_the_model_up_to_rounding(name: str) -> None:
    model = network()
    exact, rounded = slope(model), slope(HalfPrecision(model, HALVES[name]))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other), "it was computed in float32"
        assert (other - one).abs().max() < 0.02 * one.abs().max()


def test_small_gradients_survive_float16_through_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    model, small = network(), 1e-7
    exact, scaled = slope(model, small)[1], slope(HalfPrecision(model, torch.float16), small)[1]
    assert (scaled - exact).abs().max() < 0.05 * exact.abs().max()
    monkeypatch.setattr(precision, "LOSS_SCALE", 1.0)
    lost = slope(HalfPrecision(model, torch.float16), small)[1]
    assert (lost - exact).abs().max() > 0.2 * exact.abs().max()


@pytest.mark.parametrize("name", HALVES)
def test_attacks_find_what_they_find_in_float32(name: str, tmp_path: Path) -> None:
    types: set[tuple[str, torch.dtype]] = set()
    compute = Loop.compute

    def noted(self: Loop, *args: Any, **options: Any) -> Any:
        layer = next(part for part in self.model.modules() if isinstance(part, nn.Conv2d))

        def note(part: nn.Module, _: Any, output: Tensor) -> None:
            types.add(("update" if part.weight.requires_grad else "attack", output.dtype))

        with layer.register_forward_hook(note):
            return compute(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "compute", noted)
        recipe = {**RECIPE, "train": {**RECIPE["train"], "attack_precision": name}}
        trained = robustplug.train(recipe, out=tmp_path / "run")
    assert types == {("attack", HALVES[name]), ("update", torch.float32)}
    assert trained.result.meta["training"]["attack_agreement"][name] >= 0.99


def test_attacks_on_a_stand_in_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types: list[torch.dtype] = []
    forward = Averaged.forward

    def noted(self: Averaged, x: Tensor) -> Tensor:
        types.append(forward(self, x).dtype)
        return forward(self, x)

    monkeypatch.setattr(Averaged, "forward", noted)
    recipe = {**RECIPE, "train": {**RECIPE["train"], "batch_size": 128, "attack_precision": "bfloat16"}}
    recipe["method"] = {**RECIPE["method"], "perturbation": {"use": "eot", "attack": {"use": "fgsm"}}}
    recipe["validate"] = {"samples": 8, "attack": {"use": "none"}}
    trained = robustplug.train(recipe, out=tmp_path / "run")
    assert set(types) == {torch.bfloat16}
    assert "attack_agreement" not in trained.result.meta["training"], "no attack was compared"


def test_attacks_that_find_less_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(precision, "LOSS_SCALE", 1e30)  # overflows, and an attack without gradients stays
    recipe = {**RECIPE, "train": {**RECIPE["train"], "attack_precision": "float16"}}
    trained = robustplug.train(recipe, out=tmp_path / "run", reporter=told)
    (share,) = trained.result.meta["training"]["attack_agreement"].values()
    assert share < 0.99
    assert any("float16 agree with those in float32" in message for message in told.messages)


def test_float32_is_the_default(tmp_path: Path) -> None:
    small = tiny("pgd-at", train={"epochs": 1}, evaluate={"samples": 8}, validate={"samples": 8})
    robustplug.train(small, out=tmp_path / "without")
    asked = {**small, "train": {**small["train"], "attack_precision": "float32"}}
    robustplug.train(asked, out=tmp_path / "with")
    without, found = (outcome(tmp_path / name) for name in ("without", "with"))
    assert without["model"] == found["model"]


def test_it_is_refused_where_everything_is_in_half_precision(tmp_path: Path) -> None:
    train = {**RECIPE["train"], "attack_precision": "float16", "precision": "bfloat16"}
    with pytest.raises(RecipeError, match="no effect with train.precision"):
        robustplug.train({**RECIPE, "train": train}, out=tmp_path / "run")


@pytest.mark.parametrize("method", ["erm", "free-at", "consistency"])
def test_it_is_refused_where_nothing_is_attacked(method: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f'no effect: the method "{method}" attacks nothing'):
        robustplug.train(tiny(method, train={"attack_precision": "float16"}), out=tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()
