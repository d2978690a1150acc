"""SmoothAdv, MACER and consistency: losses against transcriptions of the authors' codes, and costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions.normal import Normal

from robustplug.testing import Bench, Subject, toy_plain
from robustplug_smoothing.methods import (
    MeanUnderNoise,
    consistency,
    mean_probabilities,
    mixture_loss,
    radius_hinge,
)

N, M, K = 40, 4, 5


def logits(scale: float = 2.0) -> Tensor:
    return scale * torch.randn(N, M, K, generator=torch.Generator().manual_seed(0))


def labels() -> Tensor:
    return torch.arange(N) % K


def smoothed_loss(outputs: Tensor) -> Tensor:
    """Return the cross entropy that an attack ascends, of the output map's logits."""
    return F.cross_entropy(mean_probabilities(outputs).clamp_min(1e-20).log(), labels(), reduction="none")


def test_the_attacked_loss_is_that_of_the_mean_prediction() -> None:
    # SmoothAdv_PGD.attack: softmax of each draw, their mean, its logarithm.
    parts = [F.softmax(each, dim=1) for each in logits().unbind(1)]
    logs = torch.log(torch.stack(parts).mean(0).clamp(min=1e-20))
    torch.testing.assert_close(smoothed_loss(logits()), F.nll_loss(logs, labels(), reduction="none"))


def test_consistency_is_that_of_the_code() -> None:
    draws = logits().unbind(1)
    average = torch.stack([F.softmax(each, dim=1) for each in draws]).mean(0)
    apart = [F.kl_div(F.log_softmax(each, dim=1), average, reduction="none").sum(1) for each in draws]
    entropy = (-average * torch.log(average.clamp(min=1e-20))).sum(1)
    expected = 10 * torch.stack(apart).mean(0) + 0.5 * entropy
    torch.testing.assert_close(consistency(logits(), 10, 0.5), expected)
    same = logits()[:, :1].expand(-1, M, -1)
    torch.testing.assert_close(consistency(same, 10, 0.0), torch.zeros(N), atol=1e-5, rtol=0)


def macer(outputs: Tensor, targets: Tensor, beta: float, gamma: float) -> Tensor:
    """Return the sum of the robustness loss of macer_train, without σ/2."""
    normal: Any = Normal(torch.tensor([0.0]), torch.tensor([1.0]))
    softmax = F.softmax(outputs * beta, dim=2).mean(1)
    scores, places = torch.topk(softmax, 2)
    right = places[:, 0] == targets
    out0, out1 = scores[right, 0], scores[right, 1]
    loss = normal.icdf(out1) - normal.icdf(out0)
    kept = ~torch.isnan(loss) & ~torch.isinf(loss) & (torch.abs(loss) <= gamma)
    out0, out1 = out0[kept], out1[kept]
    result: Tensor = (normal.icdf(out1) - normal.icdf(out0) + gamma).sum()
    return result


@pytest.mark.parametrize(("scale", "beta", "gamma"), [(0.3, 1.0, 8.0), (0.3, 4.0, 1.0), (4.0, 16.0, 8.0)])
def test_the_hinge_is_that_of_the_code_with_finite_gradients(scale: float, beta: float, gamma: float) -> None:
    outputs = logits(scale).requires_grad_()
    y = (beta * logits(scale)).softmax(2).mean(1).argmax(1)
    y[::3] = (y[::3] + 1) % K
    found = radius_hinge(outputs, y, beta, gamma)
    torch.testing.assert_close(found.sum(), macer(outputs, y, beta, gamma), rtol=1e-4, atol=1e-4)
    first, second = mean_probabilities(beta * logits(scale)).topk(2).values.unbind(1)
    wrong = (torch.arange(N) % 3 == 0) & (first > second)
    assert bool((found[wrong] == 0).all())
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    assert bool(gradient.isfinite().all())
    # A step down the gradient widens the difference, unless no sample counts.
    if bool((found > 0).any()):
        assert float(radius_hinge(outputs - 1e-3 * gradient, y, beta, gamma).sum()) < float(found.sum())


def test_the_loss_of_mixtures_is_that_of_the_code() -> None:
    clean, mixed = logits(), logits().flip(0)
    share = torch.rand(N, generator=torch.Generator().manual_seed(1)) / 2
    y = clean.softmax(2).mean(1).argmax(1)
    y[::4] = (y[::4] + 1) % K
    # _mixup_data and the loss of train(), with the draws in chunks.
    average = torch.stack([F.softmax(each, dim=1) for each in clean.unbind(1)]).sum(0) / M
    uniform = torch.eye(K).mean(0, keepdim=True)
    target = (1 - share).view(-1, 1) * average + share.view(-1, 1) * uniform
    parts = [
        F.kl_div(F.log_softmax(each, dim=1), target, reduction="none").sum(1) for each in mixed.unbind(1)
    ]
    right = (torch.topk(average, 1)[1][:, 0] == y).float()
    torch.testing.assert_close(mixture_loss(mixed, clean, share, y), right * torch.stack(parts).mean(0))


def test_mixtures_lie_on_the_first_half_of_the_way_to_the_attacked_samples() -> None:
    options = {
        "vicinity": {"use": "l2", "eps": 1.0},
        "perturbation": {"use": "pgd", "steps": 1, "step_ratio": 1.0, "start": "zero"},
    }
    bench = Bench(Subject("method", "smooth-mix", options), toy_plain)
    (view,) = bench.views(bench.step(bench.batch()))
    moved, share = (view.x - view.origin).flatten(1).norm(dim=1), view.info["mixed"]
    assert bool(((share >= 0) & (share <= 0.5)).all())
    assert len(set(share.tolist())) == len(view)
    # The attack reaches the radius, but for what the valid range cuts off.
    assert bool((moved <= share + 1e-5).all())
    assert float(moved.sum()) > 0.5 * float(share.sum())


@pytest.mark.parametrize("name", ["smooth-adv", "consistency", "macer"])
def test_a_batch_costs_a_pass_for_each_draw(name: str) -> None:
    bench = Bench(Subject("method", name, {"draws": 3, "perturbation": {"use": "none"}}), toy_plain)
    step = next(iter(bench.steps()))
    bench.update(step)
    assert (step.meter.forwards, step.meter.backwards) == (3 * len(step.batch), 3 * len(step.batch))


def test_the_attack_raises_the_loss_of_the_mean_prediction_under_its_noise() -> None:
    options = {
        "sigma": 0.3,
        "vicinity": {"use": "l2", "eps": 0.5},
        "perturbation": {"use": "pgd", "steps": 8},
    }
    bench = Bench(Subject("method", "smooth-adv", options), toy_plain)
    step = bench.step(bench.batch())
    (view,) = bench.views(step)
    assert view.x is not view.origin
    # Each step takes two copies of each sample forward and backward.
    assert step.meter.forwards == step.meter.backwards == 8 * 2 * len(view)
    moved, still = (
        F.cross_entropy(MeanUnderNoise(None)(step, view.replace(x=x)), view.y, reduction="none")
        for x in (view.x, view.origin)
    )
    assert bool((moved > still).all())
    assert bool(((view.x - view.origin).flatten(1).norm(dim=1) <= 0.5 + 1e-4).all())
