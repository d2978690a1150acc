"""Universal and transferable attacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import Refused
from robustplug.core.method import Objective
from robustplug.core.random import stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.recipe.errors import RecipeError
from robustplug.testing.toys import ToyTask
from robustplug_transferable.transferable import MeanLogits, diverse, smooth
from robustplug_transferable.universal import shrunk


def linear(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.numel(), 2, bias=False)
    layer.weight.data = torch.stack([-weight.flatten(), weight.flatten()])
    return nn.Sequential(nn.Flatten(), layer)


def steps(model: nn.Module, task: Any, evaluating: bool = True) -> tuple[Step, View]:
    (batch,) = task.batches("test", robustplug.api.Feed(batch_size=64))
    loss = robustplug.build("loss", "margin")
    plain = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(model, plain, task, batch, stream(0, "attack"), evaluating=evaluating)
    return step, View.of(batch, "adv")


class OneClass(ToyTask):
    """Every sample is of class 0, and well inside the range."""

    def batches(self, split: Any, feed: Any) -> Any:
        for batch in super().batches(split, feed):
            yield Batch(0.4 + 0.2 * batch.x, batch.y * 0, batch.index)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_one_perturbation_is_the_best_of_a_linear_model(norm: str) -> None:
    weight = torch.randn(3, 6, 6, generator=stream(7, "weight"))
    step, view = steps(linear(weight), OneClass(classes=2))
    vicinity = robustplug.build("vicinity", norm, eps=0.1)
    attack = robustplug.build("perturbation", "universal", epochs=30, samples=16, batch_size=8)
    found = attack(step, view, vicinity)
    away = found.x - view.x
    assert torch.allclose(away, away[:1].expand_as(away), atol=1e-6)
    best = {"linf": weight.abs().sum(), "l2": weight.norm(), "l1": weight.abs().max()}[norm] * 0.1
    assert float((away[0] * weight).sum()) > 0.97 * float(best)
    assert bool(vicinity.contains(found.x, view.origin, torch.full((len(view),), 0.1)).all())
    # Another batch of the evaluation gets the same one, without learning it again.
    spent = step.meter.forwards
    assert step.meter.prepared == spent > 0
    again = attack(step, view.rows(torch.tensor([1, 0])), vicinity)
    assert torch.equal(again.x, found.x[[1, 0]])
    assert step.meter.forwards == spent
    # Another model has another one.
    other, _ = steps(linear(-weight), OneClass(classes=2))
    assert float((attack(other, view, vicinity).x - view.x)[0].mul(weight).sum()) < 0


def test_perturbations_shrink_to_the_nearest() -> None:
    delta = torch.tensor([[3.0, -1.0, 0.5]])
    assert shrunk(delta, 1.0, torch.inf).tolist() == [[1, -1, 0.5]]
    assert torch.allclose(shrunk(delta, 2.0, 1), torch.tensor([[2.0, 0.0, 0.0]]))
    assert torch.allclose(shrunk(delta, 3.0, 1), torch.tensor([[2.5, -0.5, 0.0]]))
    assert float(shrunk(delta, 0.5, 2).norm()) == pytest.approx(0.5)
    assert torch.equal(shrunk(delta, 9.0, 2), delta)


def test_diverse_images_are_shrunk_and_placed() -> None:
    x = torch.rand(2, 1, 20, 20, generator=stream(7, "x"))
    same = diverse(x, torch.ones(2), torch.rand(2, 2), torch.zeros(1, 1, 1))
    assert torch.allclose(same, x, atol=1e-5)
    white = torch.ones(1, 1, 20, 20)
    for place, rows, columns in (
        ((0.0, 0.0), slice(0, 10), slice(0, 10)),
        ((1.0, 0.5), slice(5, 15), slice(10, 20)),
    ):
        found = diverse(white, torch.tensor([0.5]), torch.tensor([place]), torch.zeros(1, 1, 1))
        inside = torch.zeros_like(white)
        inside[..., rows, columns] = 1
        # Edges are interpolated.
        assert float((found - inside).abs().sum()) < 25
        assert float(found[..., rows, columns].mean()) > 0.9


def test_smoothing_keeps_constants_and_spreads_points() -> None:
    flat = torch.ones(1, 2, 9, 9)
    assert torch.allclose(smooth(flat, 5)[..., 2:-2, 2:-2], flat[..., 2:-2, 2:-2])
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1
    found = smooth(point, 3)[0, 0]
    line = torch.exp(-torch.tensor([-3.0, 0.0, 3.0]).square() / 2)
    assert torch.allclose(found[3:6, 3:6], torch.outer(line, line) / line.sum() ** 2)
    assert torch.equal(smooth(point, 1), point)


def test_it_goes_on_where_the_seen_model_is_fooled_and_follows_the_momentum() -> None:
    weight = torch.randn(3, 6, 6, generator=stream(7, "weight"))
    step, view = steps(linear(weight), OneClass(classes=2))
    vicinity = robustplug.build("vicinity", "linf", eps=0.1)
    plain = robustplug.build("perturbation", "transferable", diversity=0, kernel=1)
    found = plain(step, view, vicinity).x
    assert torch.allclose(found, view.x + 0.1 * weight.sign(), atol=1e-5)
    assert step.meter.forwards == step.meter.backwards == 10 * len(view)
    varied = robustplug.build("perturbation", "transferable", diversity=1.0, smallest=0.5, kernel=3)
    other = varied(step, view, vicinity).x
    assert bool(vicinity.contains(other, view.origin, torch.full((len(view),), 0.1)).all())
    assert not torch.equal(other, found)


def test_means_of_logits() -> None:
    models = [linear(torch.randn(3, 6, 6, generator=stream(n, "m"))) for n in range(3)]
    x = torch.rand(4, 3, 6, 6, generator=stream(7, "x"))
    assert torch.allclose(MeanLogits(*models)(x), (models[0](x) + models[1](x) + models[2](x)) / 3)


def test_examples_are_made_on_other_runs(tmp_path: Any) -> None:
    base = {"task": {"use": "digits"}, "train": {"epochs": 2}, "validate": {"samples": 16}}
    erm = {"use": "erm", "vicinity": {"use": "linf", "eps": 0.3}}
    for seed in (1, 2):
        first = {**base, "seed": seed, "method": erm, "evaluate": {"attack": [], "samples": 8}}
        robustplug.train(first, out=tmp_path / str(seed))
    seen = [str(tmp_path / "1"), str(tmp_path / "2")]
    attacks = [
        {"use": "transferable", "models": seen, "kernel": 3},
        {"use": "universal", "samples": 200, "epochs": 4},
        {"use": "transferable", "models": [str(tmp_path / "none")]},
    ]
    recipe = {**base, "method": erm, "evaluate": {"attack": attacks, "samples": 100}}
    clean, other, one, missing = robustplug.train(recipe, out=tmp_path / "3").result.attacks
    assert other.broken > 0.3 * other.attempted
    assert other.forwards == pytest.approx((20 + 1) * other.attempted / 100)
    assert one.prepared == 800
    assert "none" in missing.skipped
    assert clean.accuracy > 0.3


def test_what_does_not_fit_is_refused() -> None:
    for options in ({"kernel": 4}, {"smallest": 0}):
        with pytest.raises(RecipeError):
            robustplug.build("perturbation", "transferable", **options)
    step, view = steps(linear(torch.ones(108)), OneClass(classes=2))
    flat = view.replace(x=view.x.flatten(1), origin=view.origin.flatten(1))
    with pytest.raises(Refused, match="diversity = 0"):
        robustplug.build("perturbation", "transferable")(step, flat, robustplug.build("vicinity", "linf"))
