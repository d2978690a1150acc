"""What DeepFool costs, and where it is refused; its distances are in test_minimal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.builtin.perturbations.deepfool import nearest_boundary
from robustplug.core.types import Batch, View
from robustplug.errors import Refused

from .attacks import step_of


class NoGradients(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.inner(x)  # type: ignore[no-any-return]


def linear_case(size: int = 6, classes: int = 3) -> tuple[nn.Module, Batch]:
    rng = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, classes)
    linear.weight.data = torch.randn(classes, 16, generator=rng)
    linear.bias.data.zero_()
    model = nn.Sequential(nn.Flatten(), linear)
    x = 0.4 + 0.2 * torch.rand(size, 1, 4, 4, generator=rng)
    return model, Batch(x, model(x).argmax(1), torch.arange(size))


def ball(norm: str) -> Any:
    return robustplug.build("vicinity", norm, eps=1.0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_model_without_gradients_is_refused(norm: str) -> None:
    model, batch = linear_case()
    step = step_of(NoGradients(model), batch)
    with pytest.raises(Refused, match="gradients"):
        robustplug.build("perturbation", "deepfool")(step, View.of(batch, "adv"), ball(norm))
    assert step.meter.backwards == 0


def test_what_needs_no_change_costs_one_look_and_a_radius_of_zero_nothing() -> None:
    model, batch = linear_case()
    wrong = Batch(batch.x, (batch.y + 1) % 3, batch.index)
    radius = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    step = step_of(model, wrong)
    view = View.of(wrong, "adv", radius=radius)
    found = robustplug.build("perturbation", "deepfool")(step, view, ball("l2"))
    assert (step.meter.forwards, step.meter.backwards) == (4, 0)
    assert torch.equal(found.x, wrong.x)


def test_each_candidate_costs_a_backward() -> None:
    model, batch = linear_case(classes=6)
    step = step_of(model, batch)
    deepfool = robustplug.build("perturbation", "deepfool", steps=1, candidates=4)
    deepfool(step, View.of(batch, "adv"), ball("l2"))
    assert (step.meter.forwards, step.meter.backwards) == (6, 3 * 6)


@pytest.mark.parametrize("norm", [2.0, torch.inf])
def test_the_nearest_of_some_boundaries(norm: float) -> None:
    slopes = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    move = nearest_boundary(torch.tensor([[-1.0, -0.9, -0.1]]), slopes, norm)
    exact = {2.0: [[0.12, 0.16]], torch.inf: [[1 / 7, 1 / 7]]}[norm]
    torch.testing.assert_close(move, torch.tensor(exact), atol=2e-4, rtol=0)
    nowhere = nearest_boundary(torch.tensor([[-1.0]]), torch.zeros(1, 1, 2), norm)
    assert torch.equal(nowhere, torch.zeros(1, 2))
