"""Backward Smoothing and N-FGSM against NumPy transcriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustplug.api import View, uniform_like
from robustplug.testing import Bench, Subject, toy_linear

from . import reference as ref
from .reference import Array

EPS = 0.08


def bench(name: str, options: dict[str, Any]) -> Bench:
    return Bench(Subject("method", name, options), toy_linear, EPS)


def flat(x: Tensor) -> Array:
    result: Array = x.detach().flatten(1).double().numpy()
    return result


def weights(made: Bench) -> tuple[Array, Array]:
    weight, bias = (p.detach().double().numpy() for p in made.model.parameters())
    return weight, bias


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("method", ["trades", "pgd-at"])
def test_the_attack_is_algorithm_1(method: str, steps: int) -> None:
    attack = {"use": "backward-smoothing", "gamma": 1.3, "steps": steps, "step_ratio": 0.75}
    made = bench(method, {"perturbation": attack})
    step, again = made.step(made.batch()), made.step(made.batch())
    view = made.views(step)[-1]
    (w, b), x, y = weights(made), flat(step.batch.x), step.batch.y.numpy()
    radius, size = np.full(len(x), EPS), 0.75 * EPS
    z = ref.logits(w, b, x)
    psi = uniform_like(torch.zeros(z.shape), again.rng).double().numpy()
    # ∇_{z'} KL(p ‖ softmax(z')) = softmax(z') − p, and z' = W x' + b: descend (4.4), then ascend (4.5).
    moved = ref.project(x - size * np.sign((ref.softmax(z) - ref.softmax(z + 1.3 * psi)) @ w), x, radius)
    goal = ref.softmax(z) if method == "trades" else np.eye(3)[y]
    for _ in range(steps):
        gradient = (ref.softmax(ref.logits(w, b, moved)) - goal) @ w
        moved = ref.project(moved + size * np.sign(gradient), x, radius)
    np.testing.assert_allclose(flat(view.x), moved, atol=1e-6)


@pytest.mark.parametrize("method", ["trades", "pgd-at"])
def test_under_another_g_the_target_is_g_of_f_and_not_of_g(method: str) -> None:
    made = bench(method, {"perturbation": {"use": "backward-smoothing"}})
    made.method.output_map = lambda step, view: step.forward(view.x) / 4
    step, again = made.step(made.batch()), made.step(made.batch())
    view = View.of(step.batch, "adv")
    found = made.method.perturbation(step, view, made.method.vicinity)
    (w, b), x, y = weights(made), flat(step.batch.x), step.batch.y.numpy()
    radius = np.full(len(x), EPS)
    z = ref.logits(w, b, x) / 4
    psi = uniform_like(torch.zeros(z.shape), again.rng).double().numpy()
    moved = ref.project(x - EPS * np.sign((ref.softmax(z) - ref.softmax(z + psi)) @ w), x, radius)
    goal = ref.softmax(z) if method == "trades" else np.eye(3)[y]
    gradient = (ref.softmax(ref.logits(w, b, moved) / 4) - goal) @ w
    np.testing.assert_allclose(
        flat(found.x), ref.project(moved + EPS * np.sign(gradient), x, radius), atol=1e-6
    )
    assert step.meter.forwards == 2 * len(x)


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_the_clean_forward_is_made_once(method: str) -> None:
    """It gives f(x), the first step's gradient, and the target of TRADES' divergence."""
    made = bench(method, {"perturbation": {"use": "backward-smoothing"}})
    step = made.step(made.batch())
    made.views(step)
    assert (step.meter.forwards, step.meter.backwards) == (2 * len(step.batch), 2 * len(step.batch))


def test_what_an_attack_offers_is_for_that_attack_alone() -> None:
    made = bench("pgd-at", {})
    step = made.step(made.batch())
    x, wrong = step.batch.x, torch.zeros(len(step.batch), 3)
    with pytest.raises(RuntimeError, match="attack_mode"):
        step.offer(x, wrong)
    with step.attack_mode(), torch.no_grad():
        step.offer(x, wrong)
        assert torch.equal(step.forward(x), wrong)
        with step.attack_mode("train"):
            assert not torch.equal(step.forward(x), wrong)
    assert not torch.equal(step.forward(x), wrong)
    with step.attack_mode(), torch.no_grad():
        assert not torch.equal(step.forward(x), wrong)


def test_n_fgsm_is_noise_and_a_step_without_a_projection() -> None:
    made = bench("n-fgsm", {"perturbation": {"noise": 2.0, "step": 1.0}})
    step, again = made.step(made.batch()), made.step(made.batch())
    (view,) = made.views(step)
    (w, b), x, y = weights(made), flat(step.batch.x), step.batch.y.numpy()
    noise = uniform_like(step.batch.x, again.rng).flatten(1).double().numpy()
    start = ref.project(x + 2 * EPS * noise, x, np.full(len(x), 2 * EPS))
    gradient = (ref.softmax(ref.logits(w, b, start)) - np.eye(3)[y]) @ w
    expected = np.clip(start + EPS * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(flat(view.x), expected, atol=1e-6)
    assert view.radius is not None
    np.testing.assert_allclose(view.radius.numpy(), 3 * EPS, rtol=1e-6)
    assert float((view.x - view.origin).abs().max()) > EPS + 0.01


def test_n_fgsm_without_noise_is_fgsm() -> None:
    first = bench("n-fgsm", {"perturbation": {"noise": 0, "batchnorm": "eval"}})
    second = bench("pgd-at", {"perturbation": {"use": "fgsm"}})
    for made in (first, second):
        for step in made.steps(1):
            made.update(step)
    for key, value in first.tensors().items():
        torch.testing.assert_close(value, second.tensors()[key])


def test_the_method_n_fgsm_takes_other_attacks_at_the_plain_radius() -> None:
    made = bench("n-fgsm", {"perturbation": {"use": "fgsm"}})
    (view,) = made.views(made.step(made.batch()))
    assert isinstance(view, View)
    assert view.radius is not None
    np.testing.assert_allclose(view.radius.numpy(), EPS, rtol=1e-6)
