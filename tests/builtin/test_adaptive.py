"""Attacks that adapt to a model: averages over its randomness (EOT), gradients past its parts (BPDA)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import Averaged, Passed, Refused
from robustplug.builtin.wrappers import Rounding
from robustplug.core.method import Objective
from robustplug.core.random import isolated, stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.testing.toys import ToyTask
from robustplug_transferable.transferable import MeanLogits

COUNT, SIZE = 16, 12


class Shaky(nn.Module):
    """A linear model with noise in its inputs that hides its slopes."""

    def __init__(self, weight: Tensor, noise: float) -> None:
        super().__init__()
        self.weight, self.noise = nn.Parameter(weight), noise
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        slopes = self.weight + self.noise * torch.randn_like(x)
        score = ((x - 0.5) * slopes).sum(1)
        return torch.stack([-score, score], 1)


def attacked(model: nn.Module, name: str, **options: Any) -> tuple[Tensor, Step]:
    x = torch.full((COUNT, SIZE), 0.5)
    batch = Batch(x, torch.zeros(COUNT, dtype=torch.int64), torch.arange(COUNT))
    loss = robustplug.build("loss", "margin")
    plain = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(model, plain, ToyTask(classes=2), batch, stream(0, "attack"))
    vicinity = robustplug.build("vicinity", "linf", eps=0.1)
    with isolated(0):
        found = robustplug.build("perturbation", name, **options)(step, View.of(batch, "adv"), vicinity)
    assert bool(vicinity.contains(found.x, x, torch.full((COUNT,), 0.1)).all())
    return found.x - x, step


WEIGHT = torch.linspace(-1, 1, SIZE)
PGD = {"use": "pgd", "steps": 1, "step_ratio": 1.0, "start": "zero"}


def test_a_mean_over_draws_finds_slopes_that_one_draw_hides() -> None:
    once, _ = attacked(Shaky(WEIGHT, 3.0), "eot", draws=1, attack=PGD)
    often, step = attacked(Shaky(WEIGHT, 3.0), "eot", draws=400, attack=PGD)
    right = [float((each.sign() == WEIGHT.sign()).float().mean()) for each in (once, often)]
    assert right[0] < 0.75
    assert right[1] > 0.9
    # Each draw is counted, in both directions.
    assert step.meter.forwards == step.meter.backwards == 400 * COUNT
    cost = robustplug.build("perturbation", "eot", draws=5, attack={**PGD, "steps": 3}).cost
    assert tuple(cost(robustplug.api.Cost(1, 0))) == (20, 15)


@pytest.mark.parametrize(
    ("name", "options", "stand_in"),
    [
        ("eot", {"draws": 7}, Averaged),
        ("bpda", {"part": "rounding"}, Passed),
        ("transferable", {}, MeanLogits),
    ],
)
def test_a_model_in_half_precision_does_not_take_the_place_of_a_stand_in(
    name: str, options: dict[str, Any], stand_in: type[nn.Module]
) -> None:
    class Rounded(Shaky):
        def __init__(self) -> None:
            super().__init__(WEIGHT, 0.0)
            self.rounding = Rounding(3)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.rounding(x))

    model, seen = Rounded(), list[nn.Module]()

    def noted(module: nn.Module) -> nn.Module:
        seen.append(module)
        return module

    x = torch.full((COUNT, SIZE), 0.5)
    batch = Batch(x, torch.zeros(COUNT, dtype=torch.int64), torch.arange(COUNT))
    loss = robustplug.build("loss", "margin")
    plain = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    step = Step(model, plain, ToyTask(classes=2), batch, stream(0, "attack"), attacked=noted)
    if name == "transferable":
        attack = robustplug.build("perturbation", name, diversity=0, kernel=1, models=("a run",))
        attack._mean = MeanLogits(model)
    else:
        attack = robustplug.build("perturbation", name, attack=PGD, **options)
    attack(step, View.of(batch, "adv"), robustplug.build("vicinity", "linf", eps=0.1))
    assert {type(module) for module in seen} == {stand_in}
    assert model.calls > 0


def test_draws_within_other_stand_ins_count() -> None:
    model = nn.Sequential(nn.Flatten(), Shaky(WEIGHT, 1.0))
    inside = {"use": "bpda", "part": "0", "attack": PGD}
    _, step = attacked(model, "eot", draws=5, attack=inside)
    assert step.meter.forwards == step.meter.backwards == 5 * COUNT
    _, step = attacked(model, "eot", draws=5, attack={"use": "eot", "draws": 2, "attack": PGD})
    assert step.meter.forwards == step.meter.backwards == 10 * COUNT


def test_the_mean_is_that_of_the_audit() -> None:
    from robustplug.evaluation.audit import preparation

    assert vars(preparation)["Averaged"] is Averaged
    with isolated(1):
        model = Averaged(Shaky(WEIGHT, 1.0), 3)
        found = model(torch.full((2, SIZE), 0.7))
    with isolated(1):
        plain = Shaky(WEIGHT, 1.0)
        expected = sum(plain(torch.full((2, SIZE), 0.7)) for _ in range(3)) / 3
    assert torch.allclose(found, expected)


def rounded() -> nn.Module:
    head = nn.Linear(SIZE, 2)
    head.weight.data, head.bias.data = torch.stack([-WEIGHT, WEIGHT]), torch.zeros(2)
    return nn.Sequential(Rounding(3), head)


def test_gradients_go_past_a_part_that_has_none() -> None:
    blind, _ = attacked(rounded(), "pgd", steps=1, step_ratio=1.0, start="zero")
    assert float(blind.abs().max()) == 0
    past, _ = attacked(rounded(), "bpda", part="0", attack=PGD)
    assert torch.allclose(past, 0.1 * WEIGHT.sign().expand(COUNT, -1), atol=1e-6)


def test_outputs_are_those_of_the_model_and_hooks_are_gone() -> None:
    part, head = Rounding(3), nn.Linear(SIZE, 2)
    model = nn.Sequential(nn.Sequential(part), head)
    x = torch.rand(4, SIZE, generator=stream(0, "x")).requires_grad_()
    passed = Passed(model, "0.0")
    assert torch.allclose(passed(x), model(x))
    (gradient,) = torch.autograd.grad(passed(x)[:, 0].sum(), x)
    assert torch.allclose(gradient, head.weight[0].expand(4, -1))
    assert not part._forward_hooks


@pytest.mark.parametrize(
    ("part", "said"),
    [("squeeze", 'no part named "squeeze"; it has 0, 1'), ("1", "another shape"), ("", "no part")],
)
def test_parts_that_do_not_fit_are_refused(part: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        attacked(rounded(), "bpda", part=part, attack=PGD)


def test_both_work_in_a_recipe_around_each_other_and_with_the_wrapper(tmp_path: Any) -> None:
    inner = {"use": "bpda", "part": "rounding", "attack": {"use": "pgd", "steps": 3, "step_ratio": 0.5}}
    recipe = {
        "task": {"use": "digits"},
        "method": {"use": "erm", "vicinity": {"use": "linf", "eps": 0.2}},
        "train": {"epochs": 1},
        "validate": {"samples": 16},
        "evaluate": {
            "wrapper": {"use": "bit-depth", "bits": 2},
            "attack": [
                {"use": "pgd", "steps": 3, "start": "zero"},
                {"use": "eot", "draws": 2, "attack": inner},
                {"use": "bpda", "part": "none"},
            ],
            "samples": 60,
        },
    }
    clean, blind, past, wrong = robustplug.train(recipe, out=tmp_path / "run").result.attacks
    assert blind.broken == 0
    assert past.broken > 0.2 * past.attempted
    assert "no part named" in wrong.skipped
    assert clean.attempted
