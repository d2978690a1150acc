"""Terms of a loss that take the place of the slots, and gradients that are differentiated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustplug.api import Batch, Step, View, training_loss
from robustplug.testing import Bench, Subject


def smooth_net(info: Any) -> nn.Module:
    size = torch.Size(info.shape).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, info.classes))


def slope(step: Step, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    logits = step.forward(x)
    return step.gradient(logits.square().sum(), x, graph=True)


def size_of_slope(step: Step, view: View) -> Tensor:
    return slope(step, view.x).flatten(1).square().sum(1)


def made() -> Bench:
    bench = Bench(Subject("method", "erm", {}), smooth_net)

    def views(step: Step, point: Batch) -> Sequence[View]:
        return [View.of(point), View.of(point, "slope", penalty=size_of_slope, weight=0.5)]

    bench.method.views = views  # type: ignore[method-assign]
    return bench


def test_a_penalty_takes_the_place_of_the_slots_loss_and_has_no_accuracy() -> None:
    bench = made()
    step = bench.step(bench.batch())
    loss, views = training_loss(bench.method, step)
    x, y = step.batch.x.detach().requires_grad_(), step.batch.y
    logits = bench.model(x)
    (expected,) = torch.autograd.grad(logits.square().sum(), x)
    total = nn.functional.cross_entropy(logits, y) + 0.5 * expected.flatten(1).square().sum(1).mean()
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float(step.total(views).detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert "loss/slope" in step.logged
    assert "accuracy/slope" not in step.logged


def test_the_gradient_of_a_gradient_reaches_the_weights_and_counts_both_ways() -> None:
    bench = made()
    step = bench.step(bench.batch())
    view = View.of(step.batch, "slope", penalty=size_of_slope)
    step.backward(step.objective(view).mean())
    weight = bench.model.get_parameter("1.weight")
    assert weight.grad is not None
    at, number = (0, 3), 1e-3
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[at] += sign * number
        ends.append(float(size_of_slope(step, view).mean().detach()))
        with torch.no_grad():
            weight[at] -= sign * number
    assert float(weight.grad[at]) == pytest.approx((ends[0] - ends[1]) / (2 * number), rel=2e-2, abs=1e-4)


def test_a_constant_gradient_costs_one_and_one_with_a_graph_costs_three() -> None:
    bench = made()
    rows = len(bench.batch())
    for graph, backwards in ((False, 1), (True, 3)):
        step = bench.step(bench.batch())
        x = step.batch.x.detach().requires_grad_()
        found = step.gradient(step.forward(x).square().sum(), x, graph=graph)
        assert found.requires_grad == graph
        if graph:
            step.backward(found.square().sum())
        assert (step.meter.forwards, step.meter.backwards) == (rows, backwards * rows)
