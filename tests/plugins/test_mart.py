"""MART against a transcription of the objective of Wang et al. 2020 in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import RecipeError, stream
from robustplug.recipe.load import recipe_from_mapping
from robustplug.testing import Bench, Subject, toy_plain
from robustplug_mart.method import boosted_cross_entropy, doubt

from ..training.runs import tiny

ATTACK = {"steps": 2, "start": "uniform"}


def loss_by_hand(model: nn.Module, x: Tensor, adv: Tensor, y: Tensor, beta: float) -> Tensor:
    p, q = model(x).double().softmax(1), model(adv).double().softmax(1)
    rows = torch.arange(len(y))
    others = q.clone()
    others[rows, y] = 0
    boosted = -q[rows, y].log() - (1 - others.amax(1)).log()
    divergence = (p * (p / q).log()).sum(1)
    loss: Tensor = (boosted + beta * divergence * (1 - p[rows, y])).mean()
    return loss


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_loss_and_gradients_are_those_of_the_transcription(beta: float) -> None:
    made = Bench(Subject("method", "mart", {"beta": beta, "perturbation": ATTACK}), toy_plain)
    twin = toy_plain(made.task.info)
    twin.load_state_dict(made.model.state_dict())
    step = made.step(made.batch())
    views = made.views(step)
    total = step.total(views)
    step.backward(total)
    expected = loss_by_hand(twin, step.batch.x, views[0].x, step.batch.y, beta)
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in made.model.named_parameters():
        other = twin.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, other, atol=1e-6, rtol=1e-4)


def test_the_weight_has_a_gradient() -> None:
    z = torch.randn(5, 3, generator=stream(0, "z"), requires_grad=True)
    y = torch.tensor([0, 1, 2, 0, 1])
    (gradient,) = torch.autograd.grad(doubt(z, y).sum(), z)
    assert float(gradient.abs().amin()) > 0


def test_the_boosted_cross_entropy_is_finite_where_probabilities_round_to_one() -> None:
    z = torch.tensor([[0.0, 200.0, 0.0], [200.0, 0.0, 0.0]], requires_grad=True)
    losses = boosted_cross_entropy(z, torch.tensor([0, 0]))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    expected = torch.tensor([400.0 - float(torch.tensor(2.0).log()), 0.0])
    torch.testing.assert_close(losses.detach(), expected)
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


def test_a_row_that_is_one_class_counts_as_that_class() -> None:
    z = torch.randn(5, 4, generator=stream(1, "z"))
    y = torch.tensor([0, 1, 2, 3, 1])
    rows = F.one_hot(y, 4).float()
    torch.testing.assert_close(boosted_cross_entropy(z, rows), boosted_cross_entropy(z, y))
    torch.testing.assert_close(doubt(z, rows), doubt(z, y))


def test_both_views_and_the_weight_share_two_forwards() -> None:
    made = Bench(Subject("method", "mart", {"perturbation": ATTACK}), toy_plain)
    step = made.step(made.batch())
    made.update(step)
    rows = len(step.batch)
    assert (step.meter.forwards, step.meter.backwards) == (rows * (2 + 2), rows * (2 + 2))
    assert tuple(made.method.cost()) == (4, 4)


def recipe(**changes: Any) -> dict[str, Any]:
    return {**tiny("mart"), "method": {"use": "mart", **changes}}


def test_a_mix_without_the_clean_prediction_is_refused() -> None:
    for changes, reason in (
        ({"label_map": {"use": "one-hot"}}, "its divergence is from the clean prediction"),
        ({"perturbation": {"use": "none"}}, "the divergence of a prediction from itself is 0"),
    ):
        with pytest.raises(RecipeError, match=reason):
            recipe_from_mapping(recipe(**changes))
