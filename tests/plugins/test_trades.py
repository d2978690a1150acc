"""TRADES against a NumPy transcription of Eq. (5) and Algorithm 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Step, TaskInfo, View, kl_divergence, stream, training_loss

from . import reference as ref
from .reference import Array


class Flat:
    """A task of flat inputs in [0, 1]."""

    default_model = ""
    info = TaskInfo({"train": 64, "validation": 0, "test": 0}, (6,), 4)

    def score(self, view: View, output: Any) -> Tensor:
        right: Tensor = output.argmax(1) == view.y
        return right

    def batches(self, split: Any, feed: Any) -> Any:
        raise AssertionError("not needed")


def linear(seed: int = 3) -> nn.Linear:
    model = nn.Linear(6, 4).double()
    rng = stream(seed, "weights")
    with torch.no_grad():
        model.weight.copy_(2 * torch.randn(4, 6, generator=rng, dtype=torch.float64))
        model.bias.copy_(torch.randn(4, generator=rng, dtype=torch.float64))
    return model


def batch(rows: int = 16, seed: int = 5) -> Batch:
    rng = stream(seed, "batch")
    x = torch.rand(rows, 6, generator=rng, dtype=torch.float64)
    return Batch(x, torch.randint(0, 4, (rows,), generator=rng), torch.arange(rows))


def transcribed_attack(
    w: Array, b: Array, x: Array, start: Array, eps: float, step: float, steps: int
) -> Array:
    """Algorithm 1, lines 5-9: x' ← Π(x' + η₁ sign ∇_{x'} KL(f(x) ‖ f(x')))."""
    p = ref.softmax(ref.logits(w, b, x))
    radius = np.full(len(x), eps)
    moved = ref.project(start, x, radius)
    for _ in range(steps):
        # ∇_{z'} KL(p ‖ softmax(z')) = softmax(z') − p, and z' = W x' + b.
        gradient = (ref.softmax(ref.logits(w, b, moved)) - p) @ w
        moved = ref.project(moved + step * np.sign(gradient), x, radius)
    return moved


def transcribed_gradient(
    w: Array, b: Array, x: Array, adv: Array, y: Array, beta: float
) -> tuple[float, Array]:
    """Eq. (5) and its gradient in W, by hand, through both arguments of the divergence."""
    z, za = ref.logits(w, b, x), ref.logits(w, b, adv)
    p, q, hot = ref.softmax(z), ref.softmax(za), np.eye(4)[y]
    loss = ref.cross_entropy(z, hot).mean() + beta * ref.kl(p, q).mean()
    inner = np.log(p / q)
    through_p = p * (inner - (p * inner).sum(1, keepdims=True))
    gradient = ((p - hot) + beta * through_p).T @ x + beta * (q - p).T @ adv
    return float(loss), gradient / len(x)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_attack_loss_and_gradient_match_the_equations(beta: float) -> None:
    attack = {"steps": 4, "step_size": 0.02, "start": "normal", "start_scale": 0.01}
    method = robustplug.build(
        "method", "trades", beta=beta, vicinity={"use": "linf", "eps": 0.05}, perturbation=attack
    )
    model, points = linear(), batch()
    method.setup(model, Flat())
    step = Step(model, method, Flat(), points, stream(11, "noise"))
    loss, views = training_loss(method, step)
    step.backward(loss)

    w, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    x, y = points.x.numpy(), points.y.numpy()
    noise = torch.empty_like(points.x).normal_(generator=stream(11, "noise")).numpy()
    adv = transcribed_attack(w, b, x, x + 0.01 * noise, 0.05, 0.02, 4)
    assert [view.role for view in views] == ["clean", "adv"]
    # The engine computes losses in float32, so a sign can differ only where a gradient vanishes.
    np.testing.assert_allclose(views[1].x.numpy(), adv, atol=1e-6)
    expected, gradient = transcribed_gradient(w, b, x, adv, y, beta)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert model.weight.grad is not None
    np.testing.assert_allclose(model.weight.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)


def test_divergence_is_zero_for_equal_predictions_and_finite_where_they_underflow() -> None:
    z = torch.tensor([[0.0, 1.0, 2.0], [300.0, 0.0, -300.0]], requires_grad=True)
    same = kl_divergence(z, z.softmax(1))
    torch.testing.assert_close(same, torch.zeros(2))
    other = torch.tensor([[2.0, 0.0, 0.0], [-300.0, 0.0, 300.0]], requires_grad=True)
    total = kl_divergence(other, z.softmax(1)).sum()
    gradients = torch.autograd.grad(total, (z, other))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_divergence_equals_that_of_torch() -> None:
    rng = stream(0, "kl")
    z, t = torch.randn(9, 5, generator=rng), torch.randn(9, 5, generator=rng)
    expected = F.kl_div(z.log_softmax(1), t.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(kl_divergence(z, t.softmax(1)), expected)


def test_clean_forward_is_shared_between_the_views() -> None:
    method = robustplug.build("method", "trades", perturbation={"steps": 3})
    model, points = linear(), batch()
    step = Step(model, method, Flat(), points, stream(0))
    loss, _ = training_loss(method, step)
    step.backward(loss)
    # Attack: the target once, three steps. Update: clean and perturbed; f(x) is not run again.
    assert step.meter.forwards == len(points) * (1 + 3 + 2)
    assert step.meter.backwards == len(points) * (3 + 2)
