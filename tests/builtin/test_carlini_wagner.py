"""What C&W costs, and where it is refused; further distances are in test_minimal."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robustplug
from robustplug.builtin.perturbations import carlini_wagner
from robustplug.core.functional import margin
from robustplug.core.types import Batch, View
from robustplug.errors import Refused

from .attacks import attacked, digits, right, step_of, trained_model
from .test_deepfool import NoGradients, ball, linear_case


@pytest.mark.slow
def test_stopping_early_finds_about_what_running_on_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Adam swings on its way down: the loss of one sample at one moment is no reason to stop.
    model, whole = trained_model(), digits(12)
    rows = right(model, whole.x, whole)
    batch = Batch(whole.x[rows], whole.y[rows], whole.index[rows])
    options: dict[str, Any] = {"steps": 300, "search_steps": 6, "initial_c": 1.0, "lr": 0.02}
    distances, forwards = [], []
    for progress in (carlini_wagner.PROGRESS, torch.inf):
        monkeypatch.setattr(carlini_wagner, "PROGRESS", progress)
        step = step_of(model, batch)
        far = robustplug.build("vicinity", "l2", eps=8.0)
        attack = robustplug.build("perturbation", "cw-l2", **options)
        found = attack(step, View.of(batch, "adv"), far).x
        assert not right(model, found, batch).any()
        distances.append((found - batch.x).flatten(1).norm(dim=1))
        forwards.append(step.meter.forwards)
    assert forwards[0] < forwards[1] == 300 * 6 * len(batch)
    torch.testing.assert_close(distances[0], distances[1], rtol=0.05, atol=0)


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
