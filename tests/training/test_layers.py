"""Blocks that are computed again in the backward pass give the same bits, and keep less."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.random import isolated
from robustplug.recipe.errors import RecipeError
from robustplug.training.running.layers import blocks_of, plain, recompute, synchronise, undress

from .runs import outcome, tiny


class Block(nn.Module):
    """Convolution, BatchNorm, dropout, and a switch that a method may set between two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.3)
        self.factor: list[float] = [1.0]

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = x + self.factor[0] * self.drop(self.norm(self.conv(x)).relu()).tanh()
        return moved


def network() -> nn.Sequential:
    with isolated(3):
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Sequential(*(Block() for _ in range(3))), nn.Flatten(), nn.Linear(108, 4)
        )


def twice(model: nn.Module) -> dict[str, Any]:
    """Train on two states of the switch at once, after an attack; return all that is left."""
    x = torch.linspace(0, 1, 5 * 64).view(5, 1, 8, 8)
    with isolated(5):
        model.eval()
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(at).square().sum(), at)
        model.train()
        first = model(x)
        for block in model[1]:  # type: ignore[index]
            block.factor = [0.25]
        second = model(x + 0.1 * slope.sign())
        for block in model[1]:  # type: ignore[index]
            block.factor = [1.0]
        (first.square().mean() + second.abs().mean()).backward()
        after = torch.rand(2)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        "slope": slope,
        "first": first,
        "second": second,
        "after": after,
        **gradients,
        **model.state_dict(),
    }


def test_what_is_computed_again_has_the_same_bits() -> None:
    plain, other = network(), network()
    recompute(other)
    expected, found = twice(plain), twice(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    undress(other)
    assert [type(part) for part in other.modules()] == [type(part) for part in plain.modules()]


def thrice(model: nn.Module) -> list[Tensor]:
    """Take two gradients of one output, and that of the second, as gradient penalties do."""
    x = torch.linspace(0, 1, 5 * 64).view(5, 1, 8, 8).requires_grad_()
    with isolated(5):
        output = model(x)
        (first,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
        (second,) = torch.autograd.grad(output.sin().sum(), x, create_graph=True)
        (output.mean() + second.square().sum()).backward()
    return [first, second.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def test_several_gradients_of_one_output_have_the_same_bits() -> None:
    plain, other = network(), network()
    recompute(other)
    expected, found = thrice(plain), thrice(other)
    assert len(expected) == len(found)
    assert all(map(torch.equal, expected, found))
    for one, two in zip(plain.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


def kept(model: nn.Module) -> int:
    """Return the number of values that a forward pass keeps for its backward pass."""
    count = 0

    def pack(value: Tensor) -> Tensor:
        nonlocal count
        count += value.numel() * (not isinstance(value, nn.Parameter))
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model(torch.zeros(5, 1, 8, 8))
    return count


def test_less_is_kept() -> None:
    model = network()
    before = kept(model)
    recompute(model)
    assert kept(model) < before / 2


def test_a_copy_computes_with_its_own_weights() -> None:
    model = network().eval()
    recompute(model)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert not other(torch.ones(2, 1, 8, 8)).any()
    assert model(torch.ones(2, 1, 8, 8)).any()


def test_blocks_are_the_outermost_parts_with_parts() -> None:
    model = network()
    assert blocks_of(model) == list(model[1].children())
    with pytest.raises(RecipeError, match=r"checkpoint_activations[\s\S]* no blocks"):
        recompute(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_a_run_has_the_same_bits(tmp_path: Path) -> None:
    found = []
    for option in (None, True):
        settings = tiny(
            "pgd-at", train={"epochs": 1, "ema_decay": 0.5}, method={"perturbation": {"steps": 1}}
        )
        settings["model"] = {"use": "wide-resnet", "depth": 10, "width": 1}
        settings["evaluate"] = {"samples": 8, "attack": []}
        if option:
            settings["train"]["checkpoint_activations"] = True
        run = robustplug.train(settings, out=tmp_path / str(option))
        found.append(outcome(tmp_path / str(option)))
        assert not any(hasattr(part, "plain") for part in run.model.modules())
    assert found[0]["model"] == found[1]["model"]
    assert found[0]["checkpoint"] == found[1]["checkpoint"]
    assert found[0]["metrics"] == found[1]["metrics"]


def test_layers_are_plain_for_a_block() -> None:
    model = network()
    recompute(model)
    dressed = [type(part) for part in model.modules()]
    with plain(model, model):
        assert [type(part) for part in model.modules()] == [type(part) for part in network().modules()]
    assert [type(part) for part in model.modules()] == dressed


class OwnNorm(nn.BatchNorm2d):
    """A layer that may compute anything."""


@pytest.mark.parametrize(
    ("model", "why"),
    [(nn.Sequential(OwnNorm(3)), "OwnNorm"), (nn.Sequential(nn.Linear(2, 2)), "has no BatchNorm layer")],
)
def test_other_norms_are_not_synchronised(model: nn.Module, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        synchronise(model)
