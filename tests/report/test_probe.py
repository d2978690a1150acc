"""What a report computes: the loss around samples, by hand for a linear model, and examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.random import isolated, stream
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.evaluation.setting import plain_objective
from robustplug.report.figures.probe import GRID, LOSSES, examples, landscape
from robustplug.run import open_evaluation


def linear(norm: float) -> tuple[Step, View, Any, np.ndarray[Any, Any]]:
    vicinity = robustplug.build("vicinity", "l2" if norm == 2 else "linf", eps=0.1)
    layer = nn.Linear(6, 3, bias=False)
    model = nn.Sequential(nn.Flatten(), layer)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(weight)
    x = 0.4 + 0.2 * torch.rand(20, 1, 2, 3, generator=generator)
    batch = Batch(x, torch.arange(20) % 3, torch.arange(20))
    objective = plain_objective(robustplug.build("loss", "ce"))
    task: Any = None
    step = Step(model.eval(), objective, task, batch, stream(0, "test"), evaluating=True)
    return step, View.of(batch, "adv"), vicinity, weight.numpy()


@pytest.mark.parametrize("norm", [2, np.inf])
def test_the_landscape_of_a_linear_model_is_that_computed_by_hand(norm: float) -> None:
    step, view, vicinity, weight = linear(norm)
    found = landscape(step, view, vicinity, 7, False)
    assert found.samples == LOSSES
    assert found.radius == pytest.approx(0.1)
    np.testing.assert_allclose(found.along, np.linspace(-0.2, 0.2, GRID), atol=1e-7)
    bits = torch.randint(0, 2, (LOSSES, 1, 2, 3), generator=stream(7, "report", "rademacher"))
    r = (2.0 * bits.numpy() - 1).reshape(LOSSES, 6)
    assert set(r.ravel()) == {-1.0, 1.0}
    x, y = view.x.numpy().reshape(20, 6)[:LOSSES], view.y.numpy()[:LOSSES]

    def losses(at: Any) -> Any:
        z = at @ weight.T
        return np.log(np.exp(z).sum(1)) - z[np.arange(LOSSES), y]

    p = np.exp(x @ weight.T)
    p /= p.sum(1, keepdims=True)
    sign = np.sign((p - np.eye(3)[y]) @ weight)
    unit = np.sqrt(6) if norm == 2 else 1.0
    for row, b in enumerate(found.along):
        for column, a in enumerate(found.along):
            if (row + column) % 7 == 0:
                expected = losses(x + (a * sign + b * r) / unit).mean()
                assert found.losses[row][column] == pytest.approx(expected, rel=1e-4)
    # Along the gradient the loss rises.
    middle = found.losses[GRID // 2]
    assert middle[-1] > middle[GRID // 2] > middle[0]


def test_the_landscape_of_images_stays_within_them() -> None:
    step, view, vicinity, _ = linear(np.inf)
    seen = []
    step.model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    vicinity.eps = 2.0
    landscape(step, view, vicinity, 0, True)
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in seen)
    assert len(seen) == GRID * GRID + 1


def test_examples_show_broken_samples_first_and_magnify_the_change() -> None:
    with isolated(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    opened = open_evaluation(
        model,
        task={"use": "digits", "test": 1500},
        vicinity={"use": "linf", "eps": 0.05},
        attacks=[{"use": "fgsm"}],
        samples=200,
        device="cpu",
    )
    with opened.running():
        step, view, vicinity = next(opened.steps(opened.attacks[0], 0))
        found = examples(opened, step, view, vicinity)
        assert opened.attacks[0].perturbation is not None
        moved = opened.attacks[0].perturbation(step, view, vicinity).x
        with torch.no_grad():
            broken = step.model(moved).argmax(1) != view.y
    assert 0 < found.broken == int(broken.sum())
    assert found.tried == len(view)
    outcomes = [caption.split()[0] for caption, _ in found.adversarial]
    assert outcomes == sorted(outcomes, key="→ still".index)
    first = int(broken.nonzero()[0])
    caption, image = found.original[0]
    assert caption == str(int(view.y[first]))
    np.testing.assert_array_equal(image, view.origin[first].numpy())
    # ε fills the range from grey to white, up to a round factor.
    assert found.magnified == 10
    shown = found.perturbation[0][1]
    expected = np.clip(0.5 + 10 * (moved - view.origin)[first].numpy(), 0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert found.perturbation[0][0] == "0.05"
