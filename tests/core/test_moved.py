"""Weights that are moved for a while: the same bits afterwards, and no output of one side on the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.method import Objective
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.testing.toys import ToyTask, toy_batchnorm


def step_on(model: nn.Module) -> Step:
    task = ToyTask()
    batch = Batch(
        torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)),
        torch.arange(4) % 3,
        torch.arange(4),
    )

    def loss(step: Step, view: View, output: Any, target: Any) -> Tensor:
        return nn.functional.cross_entropy(output, target, reduction="none")

    parts = Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)
    return Step(model, parts, task, batch, torch.Generator().manual_seed(0))


def moves_of(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    return {weight: torch.full_like(weight, 0.1) for weight in model.parameters()}


def bits(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_weights_come_back_bit_for_bit_and_outputs_are_those_of_their_side() -> None:
    model = toy_batchnorm(ToyTask().info).eval()
    step, before = step_on(model), bits(model)
    view = View.of(step.batch)
    here = step.output(view)
    with step.moved(moves_of(model)):
        there = step.output(view)
        assert not torch.equal(here, there)
        assert step.output(view) is there
        assert not same(bits(model), before)
    assert same(bits(model), before)
    again = step.output(view)
    assert again is not here
    assert torch.equal(again, here)
    assert step.meter.forwards == 12


def test_weights_come_back_after_an_error() -> None:
    model = toy_batchnorm(ToyTask().info)
    step, before = step_on(model), bits(model)
    with pytest.raises(ZeroDivisionError), step.moved(moves_of(model)):
        raise ZeroDivisionError
    assert same(bits(model), before)


def test_a_rehearsal_leaves_no_trace_and_is_counted() -> None:
    model = toy_batchnorm(ToyTask().info).train()
    step, before = step_on(model), bits(model)
    weights = list(model.parameters())
    with step.rehearsal():
        found = step.weight_gradients(step.total([View.of(step.batch)]), weights)
        assert not same(bits(model), before)  # running statistics
    assert same(bits(model), before)
    assert all(weight.grad is None for weight in weights)
    assert [each.shape for each in found] == [weight.shape for weight in weights]
    assert (step.meter.forwards, step.meter.backwards) == (4, 4)
    # The update itself is counted anew.
    step.backward(step.total([View.of(step.batch)]))
    assert (step.meter.forwards, step.meter.backwards) == (8, 8)


def test_gradients_are_averaged_over_processes() -> None:
    model = toy_batchnorm(ToyTask().info).eval()
    step = step_on(model)
    seen: list[Tensor] = []
    step.average = lambda tensors: seen.extend(tensors)
    with step.rehearsal():
        found = step.weight_gradients(step.total([View.of(step.batch)]), list(model.parameters()))
    assert all(a is b for a, b in zip(found, seen, strict=True))


def test_a_weight_may_depend_on_outputs_without_another_forward() -> None:
    model = toy_batchnorm(ToyTask().info).eval()
    step = step_on(model)

    def doubt(step: Step, view: View) -> Tensor:
        p: Tensor = step.output(view.at_origin()).softmax(1).gather(1, view.y[:, None])[:, 0]
        return 1 - p

    clean = View.of(step.batch)
    total = step.total([clean, clean.replace(weight=doubt, treat_as="other")])
    assert step.meter.forwards == 4
    logits = model(step.batch.x)
    losses = nn.functional.cross_entropy(logits, step.batch.y, reduction="none")
    p = logits.softmax(1).gather(1, step.batch.y[:, None])[:, 0]
    expected = losses.mean() + ((1 - p) * losses).mean()
    torch.testing.assert_close(total, expected)
    weights = list(model.parameters())
    pairs = zip(torch.autograd.grad(total, weights), torch.autograd.grad(expected, weights), strict=True)
    for found, other in pairs:
        torch.testing.assert_close(found, other)
