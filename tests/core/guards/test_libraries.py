from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustplug.core.guards.libraries import guarded
from robustplug.core.random import isolated, stream
from robustplug.core.step import Step
from robustplug.core.types import Feed
from robustplug.evaluation.setting import plain_objective
from robustplug.testing import ToyTask


def network() -> nn.Module:
    with isolated(0):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
        )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones(3, 64)
    return model


def step_of(model: nn.Module, seed: int = 0) -> Step:
    task = ToyTask(0)
    batch = next(iter(task.batches("train", Feed(batch_size=5))))
    loss: Any = None
    return Step(model, plain_objective(loss), task, batch, stream(seed, "guard"), evaluating=True)


def everything(model: nn.Module) -> list[Any]:
    """Return all that foreign code might change, in a form that compares."""
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in model.parameters()],
        [buffer.tolist() for buffer in model.buffers()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.backends.cudnn.deterministic,
    ]


def train_mode(model: nn.Module) -> None:
    model.train()
    model(torch.rand(5, 3, 6, 6))


def seeds(model: nn.Module) -> None:
    getattr(torch, "manual_seed")(7)  # noqa: B009
    getattr(random, "seed")(7)  # noqa: B009
    getattr(np.random, "seed")(7)  # noqa: B009


def gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.zero_grad()
    model(torch.rand(5, 3, 6, 6)).sum().backward()


def flags(model: nn.Module) -> None:
    torch.backends.cudnn.deterministic = True
    torch.set_grad_enabled(False)


CHANGES: list[Callable[[nn.Module], None]] = [train_mode, seeds, gradients, flags]


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_everything_is_put_back(change: Callable[[nn.Module], None], fail: bool) -> None:
    model = network()
    before = everything(model)
    try:
        with guarded(step_of(model)) as shown:
            change(shown)
            if fail:
                raise RuntimeError("the attack is broken")
    except RuntimeError:
        assert fail
    assert everything(model) == before


def test_inside_the_model_is_ready_for_an_attack() -> None:
    model = network()
    with torch.no_grad(), guarded(step_of(model)) as shown:
        assert not any(module.training for module in shown.modules())
        assert not any(parameter.requires_grad for parameter in shown.parameters())
        assert all(parameter.grad is None for parameter in shown.parameters())
        x = torch.rand(5, 3, 6, 6).requires_grad_()
        shown(x).sum().backward()
        assert x.grad is not None
        assert next(shown.parameters()).device == torch.device("cpu")
    with torch.inference_mode(), guarded(step_of(model)) as shown:
        x = torch.rand(5, 3, 6, 6).requires_grad_()
        torch.autograd.grad(shown(x).sum(), x)


def test_calls_are_counted() -> None:
    step = step_of(network())
    with guarded(step) as shown:
        x = torch.rand(7, 3, 6, 6).requires_grad_()
        output = shown(x)
        torch.autograd.grad(output[:, 0].sum(), x, retain_graph=True)
        torch.autograd.grad(output[:, 1].sum(), x)
        with torch.no_grad():
            shown(x)
    assert (step.meter.forwards, step.meter.backwards) == (14, 14)


def test_the_noise_comes_from_the_step() -> None:
    def draws(seed: int) -> list[float]:
        with guarded(step_of(network(), seed)):
            return [float(torch.rand(())), random.random(), float(np.random.rand())]

    assert draws(0) == draws(0)
    assert all(one != other for one, other in zip(draws(0), draws(1), strict=True))
