"""What C&W costs, and where it is refused; further distances are in test_minimal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.errors import Refused
from robustplug.functional import margin
from robustplug.types import Batch, View

from .attacks import attacked, right, step_of
from .test_deepfool import NoGradients, ball, linear_case


def near_case() -> tuple[nn.Module, Batch, torch.Tensor]:
    """Return two-class samples close to the boundary, and their distances to it."""
    rng = torch.Generator().manual_seed(3)
    linear = nn.Linear(64, 2, bias=False)
    normal = torch.randn(64, generator=rng)
    normal -= normal.mean()
    normal /= normal.norm()
    linear.weight.data = torch.stack([normal, -normal])
    exact = torch.tensor([0.02, 0.04, 0.06, 0.1, 0.2, 0.4])
    x = 0.5 + exact[:, None] * normal
    batch = Batch(x.view(-1, 1, 8, 8), torch.zeros(6, dtype=torch.int64), torch.arange(6))
    return nn.Sequential(nn.Flatten(), linear), batch, exact


def test_adam_is_not_stopped_in_the_middle_of_a_swing() -> None:
    # Adam's first moves are longer than the distance: the loss swings before it falls.
    model, batch, exact = near_case()
    options: dict[str, Any] = {"steps": 300, "search_steps": 6, "initial_c": 1.0, "lr": 0.02}
    found = attacked("cw-l2", model, batch, ball("l2"), **options)
    assert not right(model, found, batch).any()
    torch.testing.assert_close((found - batch.x).flatten(1).norm(dim=1), exact, rtol=0.03, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_model_without_gradients_is_refused(norm: str) -> None:
    model, batch = linear_case()
    step = step_of(NoGradients(model), batch)
    with pytest.raises(Refused, match="gradients"):
        robustplug.build("perturbation", "cw-l2")(step, View.of(batch, "adv"), ball(norm))
    assert step.meter.backwards == 0


def test_what_needs_no_change_costs_one_look_a_constant_and_a_radius_of_zero_nothing() -> None:
    model, batch = linear_case()
    wrong = Batch(batch.x, (batch.y + 1) % 3, batch.index)
    step = step_of(model, wrong)
    view = View.of(wrong, "adv", radius=torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    found = robustplug.build("perturbation", "cw-l2", steps=50, search_steps=3)(step, view, ball("l2"))
    assert (step.meter.forwards, step.meter.backwards) == (3 * 4, 3 * 4)
    torch.testing.assert_close(found.x, wrong.x, atol=1e-6, rtol=0)


def test_a_success_has_the_margin_that_was_asked_for() -> None:
    model, batch = linear_case()
    options: dict[str, Any] = {"steps": 200, "search_steps": 4, "initial_c": 1.0, "lr": 0.02}
    plain = attacked("cw-l2", model, batch, ball("l2"), **options)
    sure = attacked("cw-l2", model, batch, ball("l2"), kappa=0.5, **options)
    assert bool((margin(model(sure), batch.y) >= 0.499).all())
    assert bool(((sure - batch.x).flatten(1).norm(dim=1) > (plain - batch.x).flatten(1).norm(dim=1)).all())
