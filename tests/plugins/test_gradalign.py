"""GradAlign against a transcription of the penalty of Andriushchenko and Flammarion 2020 in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import stream
from robustplug.testing import Bench, Subject
from robustplug_gradalign.method import misalignment

from ..training.runs import tiny


class Curved(nn.Module):
    """A small network with a second derivative everywhere, so that finite differences can check it."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(inputs, 5), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(torch.tanh(self.hidden(x.flatten(1))))
        return result


def curved(info: Any) -> nn.Module:
    return Curved(torch.Size(info.shape).numel(), info.classes)


def gradalign(strength: float = 0.5, inner: str = "fast-at", **options: Any) -> Bench:
    table = {
        "strength": strength,
        "inner": {"use": inner, "vicinity": {"use": "linf", "eps": 0.1}, **options},
    }
    return Bench(Subject("method", "gradalign", table), curved)


def slope(model: nn.Module, x: Tensor, y: Tensor, graph: bool) -> Tensor:
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(model(x), y), x, create_graph=graph)
    return found.flatten(1)


def test_loss_and_gradients_are_those_of_the_transcription() -> None:
    made = gradalign()
    twin = curved(made.task.info)
    twin.load_state_dict(made.model.state_dict())
    step = made.step(made.batch())
    views = made.views(step)
    total = step.total(views)
    step.backward(total)
    x, y, noisy = step.batch.x, step.batch.y, views[1].x
    cosine = F.cosine_similarity(slope(twin, x, y, graph=False), slope(twin, noisy, y, graph=True), 1, 1e-20)
    expected = F.cross_entropy(twin(views[0].x), y) + 0.5 * (1 - cosine.mean())
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(1 - cosine.detach().mean()) > 1e-4
    for name, parameter in made.model.named_parameters():
        torch.testing.assert_close(parameter.grad, twin.get_parameter(name).grad, atol=1e-7, rtol=1e-4)


def test_the_penalty_s_gradient_is_that_of_finite_differences() -> None:
    model = Curved(4, 3).double()
    x = torch.randn(6, 4, generator=stream(0, "x"), dtype=torch.float64)
    y = torch.arange(6) % 3
    here = slope(model, x, y, graph=False)
    weight = model.hidden.weight

    def penalty() -> Tensor:
        return misalignment(here, slope(model, x + 0.3, y, graph=True)).mean()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    for row, column in ((0, 0), (2, 3), (4, 1)):
        with torch.no_grad():
            weight[row, column] += 1e-5
        above = float(penalty().detach())
        with torch.no_grad():
            weight[row, column] -= 2e-5
        below = float(penalty().detach())
        with torch.no_grad():
            weight[row, column] += 1e-5
        assert float(gradient[row, column]) == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-9)


def test_misalignment_has_no_scale_and_no_value_for_zero_gradients() -> None:
    a = torch.tensor([[1.0, 0.0], [1e-30, 0.0], [0.0, 0.0], [2.0, 2.0]])
    b = torch.tensor([[0.0, 3.0], [-1e30, 0.0], [1.0, 1.0], [5.0, 5.0]], requires_grad=True)
    found = misalignment(a, b)
    torch.testing.assert_close(found.detach(), torch.tensor([1.0, 2.0, 0.0, 0.0]))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert b.grad is not None
    assert bool(torch.isfinite(b.grad).all())


def test_it_works_in_training_mode_with_batchnorm() -> None:
    made = Bench(Subject("method", "gradalign", {"inner": {"use": "fast-at"}}))
    step = made.step(made.batch())
    views = made.views(step)
    assert made.method.vicinity.contains(
        views[1].x, step.batch.x, step.radii(views[1], made.method.vicinity)
    ).all()
    step.backward(step.total(views))
    assert all(p.requires_grad and p.grad is not None for p in made.model.parameters())


def test_costs_count_the_double_backward() -> None:
    assert tuple(gradalign().method.cost()) == (1 + 1 + 2, 1 + 1 + 4)
    made = gradalign()
    step = made.step(made.batch())
    made.update(step)
    rows = len(step.batch)
    assert (step.meter.forwards, step.meter.backwards) == (4 * rows, 6 * rows)


@pytest.mark.parametrize(
    "inner", [{"use": "free-at", "replays": 2}, {"use": "trades", "perturbation": {"steps": 1}}]
)
def test_it_stands_around_methods_that_read_their_views(inner: dict[str, Any]) -> None:
    made = Bench(Subject("method", "gradalign", {"inner": inner}), curved)
    for step in made.steps(1):
        views = made.update(step)
    assert views[-1].role == "alignment"
    assert float(step.logged["alignment"]) > 0


def test_awp_stands_around_it() -> None:
    made = Bench(
        Subject("method", "awp", {"inner": {"use": "gradalign", "inner": {"use": "fast-at"}}}), curved
    )
    before = made.tensors()
    for step in made.steps(1):
        made.update(step)
    assert any(not torch.equal(value, before[name]) for name, value in made.tensors().items())


def test_a_run_reports_the_penalty_and_no_accuracy_of_it(tmp_path: Any) -> None:
    recipe = {**tiny("fast-at"), "method": {"use": "gradalign", "inner": {"use": "fast-at"}}}
    trained = robustplug.train(recipe, out=tmp_path / "run")
    assert trained.result.meta["training"]["mechanism"]["alignment"] > 0
    assert "accuracy/alignment" not in trained.history[-1].train
    assert "loss/alignment" in trained.history[-1].train
