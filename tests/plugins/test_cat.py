"""CAT against a NumPy transcription of Algorithm 8, Eq. (4.4) and Eq. (4.6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import robustplug
from robustplug.api import Batch, Step, View, dirichlet, stream, training_loss
from robustplug_cat.method import custom_labels, next_radius

from . import reference as ref
from .reference import Array
from .test_trades import Flat, batch, linear

ETA, EPS_MAX, C, KAPPA, STEPS, SIZE = 0.02, 0.05, 4.0, 1.0, 3, 0.015


def margin(z: Array, y: Array) -> tuple[Array, Array]:
    """max{max_{j≠y} Z_j − Z_y, −κ} and its gradient in Z."""
    rows = np.arange(len(z))
    others = z.copy()
    others[rows, y] = -np.inf
    best = others.argmax(1)
    value = others[rows, best] - z[rows, y]
    gradient = np.zeros_like(z)
    gradient[rows, best] += 1
    gradient[rows, y] -= 1
    gradient[value <= -KAPPA] = 0
    return np.maximum(value, -KAPPA), gradient


def transcribed_step(
    w: Array, b: Array, x: Array, y: Array, eps: Array, draws: tuple[Array, Array]
) -> tuple[Array, Array, float, Array]:
    """Algorithm 8, the body of the loop over batches; returns x + δ, ε, the loss and its gradient in W."""
    hot = np.eye(4)[y]
    label = (1 - C * eps)[:, None] * hot + (C * eps)[:, None] * draws[0]
    trial = eps + ETA
    moved = x.copy()
    for _ in range(STEPS):
        z = ref.logits(w, b, moved)
        gradient = (ref.softmax(z) - label + margin(z, y)[1]) @ w
        moved = ref.project(moved + SIZE * np.sign(gradient), x, trial)
    z = ref.logits(w, b, moved)
    new = np.minimum(np.where(z.argmax(1) != y, 0, trial), EPS_MAX)
    label = (1 - C * new)[:, None] * hot + (C * new)[:, None] * draws[1]
    value, slope = margin(z, y)
    loss = (ref.cross_entropy(z, label) + value).mean()
    return moved, new, float(loss), (ref.softmax(z) - label + slope).T @ moved / len(x)


def build_cat(**changes: Any) -> Any:
    options = {
        "eta": ETA,
        "vicinity": {"use": "linf", "eps": EPS_MAX},
        "perturbation": {"use": "pgd", "steps": STEPS, "step_size": SIZE},
        "label_map": {"use": "cat", "c": C},
        "loss": {"use": "cat", "kappa": KAPPA},
    }
    return robustplug.build("method", "cat", **{**options, **changes})


def test_four_updates_match_algorithm_8() -> None:
    method, model, points = build_cat(), linear(), batch()
    method.setup(model, Flat())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    w, b = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    x, y, eps = points.x.numpy(), points.y.numpy(), np.zeros(len(points))
    resets = grown = 0
    for number in range(4):
        rng = stream(7, number)
        ones = torch.ones(len(points), 4)
        first, second = (dirichlet(ones, rng, least=1.0).double().numpy() for _ in range(2))
        step = Step(model, method, Flat(), points, stream(7, number))
        loss, views = training_loss(method, step)
        optimizer.zero_grad()
        step.backward(loss)
        moved, new, expected, gradient = transcribed_step(w, b, x, y, eps, (first, second))
        np.testing.assert_allclose(views[0].x.numpy(), moved, atol=1e-6)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
        assert model.weight.grad is not None
        np.testing.assert_allclose(model.weight.grad.numpy(), gradient, rtol=1e-3, atol=1e-5)
        optimizer.step()
        method.after_step(step, views)
        np.testing.assert_allclose(method.eps.values[: len(points)].numpy(), new, atol=1e-6)
        assert method.eps.values[len(points) :].eq(0).all(), "samples outside the batch keep their radius"
        resets, grown = resets + int((new == 0).sum()), grown + int((new > 0).sum())
        eps = method.eps.values[: len(points)].double().numpy()
        w, b = model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()
    assert resets, "the case must show a reset"
    assert grown, "and a growth"
    assert eps.max() == pytest.approx(EPS_MAX), "and the upper bound"


def test_radius_rules() -> None:
    radius = torch.tensor([0.0, 0.03, 0.05, 0.05])
    trial = radius + 0.01
    fooled = torch.tensor([False, True, False, True])

    def rule(variant: str, attacked: torch.Tensor) -> list[float]:
        return [round(v, 4) for v in next_radius(variant, radius, attacked, fooled, 0.01, 0.05).tolist()]

    assert rule("paper", trial) == [0.01, 0.0, 0.05, 0.0]
    capped = trial.clamp_max(0.05)
    assert rule("official-v1", capped) == [0.01, 0.0, 0.05, 0.0]
    # Robust samples fall back to where they were, fooled ones keep the increment.
    assert rule("official-v2", capped) == [0.0, 0.04, 0.04, 0.05]


def test_labels_sum_to_one_and_shrink_with_the_radius() -> None:
    labels, eps = torch.tensor([0, 1, 2]), torch.tensor([0.0, 0.1, 0.25])
    draw = dirichlet(torch.ones(3, 4), stream(0))
    rows = custom_labels(labels, 4, 4 * eps, draw)
    torch.testing.assert_close(rows.sum(1), torch.ones(3))
    torch.testing.assert_close(rows[0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(rows[1], 0.6 * torch.eye(4)[1] + 0.4 * draw[1])
    torch.testing.assert_close(rows[2], draw[2])


def test_official_v1_trains_fooled_samples_on_the_clean_image() -> None:
    method, model, points = build_cat(variant="official-v1"), linear(), batch()
    method.setup(model, Flat())
    step = Step(model, method, Flat(), points, stream(7))
    (view,) = method.views(step, points)
    with torch.no_grad():
        clean_right = model(points.x).argmax(1) == points.y
    reset = view.info["eps"] == 0
    assert reset.any()
    assert (~reset).any()
    assert torch.equal(view.x[reset], points.x[reset])
    assert not torch.equal(view.x[~reset], points.x[~reset])
    assert reset[~clean_right].all()


def test_margin_weight_of_the_released_code() -> None:
    points = batch(4)
    eps = torch.tensor([0.0, 0.1, 0.2, 0.3])
    view = View.of(points, "adv", radius=torch.full((4,), 0.1), info={"eps": eps})
    z = torch.randn(4, 4, generator=stream(1)) * 0.1
    target = torch.eye(4)[points.y]
    losses = {}
    for weight in ("one", "radius-sum"):
        method = build_cat(loss={"use": "cat", "kappa": 50, "margin_weight": weight})
        step = Step(linear(), method, Flat(), Batch(points.x, points.y, points.index), stream(0))
        losses[weight] = method.loss(step, view, z, target)
    entropy = torch.nn.functional.cross_entropy(z, target, reduction="none")
    expected = entropy + (losses["one"] - entropy) * 4 * eps
    torch.testing.assert_close(losses["radius-sum"], expected)


def test_the_margin_is_weighted_by_the_attacked_radius_then_by_the_stored_one() -> None:
    method, model, points = build_cat(variant="official-v1", eta=0.01), linear(), batch()
    method.setup(model, Flat())
    seen: list[View] = []
    attack = method.perturbation

    def watched(step: Step, view: View, vicinity: Any) -> View:
        seen.append(view)
        found: View = attack(step, view, vicinity)
        return found

    method.perturbation = watched
    step = Step(model, method, Flat(), points, stream(7))
    (view,) = method.views(step, points)
    assert seen[0].info["margin"] is seen[0].radius
    assert not seen[0].info["eps"].any()
    assert "margin" not in view.info


def test_fixed_radius_never_changes() -> None:
    method, model, points = build_cat(adaptive=False), linear(), batch()
    method.setup(model, Flat())
    step = Step(model, method, Flat(), points, stream(7))
    views = method.views(step, points)
    method.after_step(step, views)
    assert method.eps.values.eq(torch.tensor(EPS_MAX)).all()
    assert views[0].radius.eq(torch.tensor(EPS_MAX)).all()
