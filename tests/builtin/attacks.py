"""A small model and steps to try attacks in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.protocols import Vicinity
from robustplug.core.random import isolated, stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, Feed, View
from robustplug.evaluation.setting import plain_objective

EPS = {"linf": 0.1, "l2": 0.6}


def digits(size: int) -> Batch:
    task = robustplug.build("task", "digits")
    (batch,) = task.batches("test", Feed(batch_size=size, samples=size))
    return batch  # type: ignore[no-any-return]


def trained_model(classes: int = 10) -> nn.Module:
    """Train a small CNN on digits for a moment, with a little noise."""
    task = robustplug.build("task", "digits")
    with isolated(0):
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, classes),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rng = stream(0, "noise")
    for epoch in range(8):
        for batch in task.batches("train", Feed(batch_size=128, shuffle=True, epoch=epoch)):
            noise = 0.1 * torch.empty_like(batch.x).normal_(generator=rng)
            loss = nn.functional.cross_entropy(model((batch.x + noise).clamp(0, 1)), batch.y % classes)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return model.eval()


def step_of(model: nn.Module, batch: Batch, evaluating: bool = True, seed: int = 0) -> Step:
    task = robustplug.build("task", "digits")
    objective = plain_objective(robustplug.build("loss", "ce"))
    return Step(model, objective, task, batch, stream(seed, "attack"), evaluating=evaluating)


def attacked(
    name: str,
    model: nn.Module,
    batch: Batch,
    vicinity: Vicinity,
    /,
    radius: Tensor | None = None,
    evaluating: bool = True,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Return what an attack makes of a batch."""
    step = step_of(model, batch, evaluating, seed)
    view = View.of(batch, "adv", radius=radius)
    result: Tensor = robustplug.build("perturbation", name, **options)(step, view, vicinity).x
    return result


def right(model: nn.Module, x: Tensor, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) == batch.y  # type: ignore[no-any-return]
