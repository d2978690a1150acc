"""SMART against a transcription of its objective, with loops over texts and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Feed, Method, Refused, Step, isolated, normal_like, stream, training_loss
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.load import read_recipe
from robustplug_text.smart import climbed, symmetric_divergence
from robustplug_text.words import Shifted

from .small import small_task

ASCENT = {"step_size": 0.3, "largest": 0.4, "start": 0.05}


def model(seed: int = 3) -> Any:
    with isolated(seed):
        made: Any = robustplug.build(
            "model", "word-cnn", width=10, filters=6, sizes=[1, 2], dropout=0.0, info=small_task().info
        )
    return made.double()


def smart(network: nn.Module, **options: Any) -> Any:
    method: Method[Any] = robustplug.build("method", "smart", **{**ASCENT, **options})
    method.setup(network, small_task())
    return method


def batch() -> Batch:
    first: Batch = next(iter(small_task().batches("train", Feed(batch_size=7))))
    return first


def gradients_of(network: nn.Module, method: Any) -> tuple[float, dict[str, Tensor]]:
    step = Step(network, method, small_task(), batch(), stream(1, "smart"))
    network.zero_grad()
    total, views = training_loss(method, step)
    step.backward(total)
    assert (step.meter.forwards, step.meter.backwards) == tuple(7 * passes for passes in method.cost())
    method.after_step(step, views)
    return float(total.detach()), {
        name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
    }


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Σ_k p log(p/q) + q log(q/p) of one sample."""
    return sum(
        (p[k] * (p[k] / q[k]).log() + q[k] * (q[k] / p[k]).log() for k in range(len(p))), torch.zeros(())
    )


def between(one: Tensor, other: Tensor) -> Tensor:
    rows = zip(one.softmax(1), other.softmax(1), strict=True)
    return torch.stack([divergence(p, q) for p, q in rows])


def transcribed(
    network: Any, earlier: Any, steps: int, rescale: bool, smoothness: float, proximal: float
) -> tuple[float, dict[str, Tensor]]:
    own = batch()
    there = network.there(own.x)
    size, largest, start = ASCENT["step_size"], ASCENT["largest"], ASCENT["start"]
    shift = start * normal_like(torch.zeros(*there.shape, network.width), stream(1, "smart"))
    shift = shift * there[..., None]
    here = network(own.x).detach()
    for _ in range(steps):
        shift = shift.detach().requires_grad_()
        (slope,) = torch.autograd.grad(between(network(Shifted(own.x, shift)), here).sum(), shift)
        moved = shift.detach().clone()
        for row in range(len(moved)):
            for token in range(moved.shape[1]):
                if not there[row, token]:
                    continue
                if rescale:
                    moved[row, token] += size * slope[row, token]
                    moved[row, token] *= largest / moved[row, token].abs().max()
                elif bool(slope[row, token].any()):
                    moved[row, token] += size * slope[row, token] / slope[row, token].abs().max()
        shift = moved if rescale else moved.clamp(-largest, largest)
    network.zero_grad()
    clean = network(own.x)
    total = F.cross_entropy(clean.float(), own.y)
    total = total + smoothness * between(network(Shifted(own.x, shift)), clean).mean()
    total = total + proximal * between(clean, earlier(own.x).detach()).mean()
    total.backward()  # type: ignore[no-untyped-call]
    return float(total.detach()), {
        name: p.grad for name, p in network.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_and_its_gradient_are_those_of_the_objective(steps: int, rescale: bool) -> None:
    network = model()
    method = smart(network, steps=steps, rescale=rescale, smoothness=2.0, proximal=0.5)
    method.earlier.load_state_dict(model(5).state_dict())  # as if much had been learned since
    total, found = gradients_of(network, method)
    expected_total, expected = transcribed(model(), model(5), steps, rescale, 2.0, 0.5)
    assert total == pytest.approx(expected_total, rel=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_without_penalties_it_is_plain_training() -> None:
    network = model()
    method = smart(network, smoothness=0, proximal=0)
    total, found = gradients_of(network, method)
    other = model()
    loss = F.cross_entropy(other(batch().x).float(), batch().y)
    loss.backward()  # type: ignore[no-untyped-call]
    assert total == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)
    assert not list(method.state.parameters())
    assert method.mechanism(None, []) == {}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_copy_is_an_average_of_the_weights_before(momentum: float) -> None:
    network = model()
    method = smart(network, momentum=momentum, smoothness=0)
    first = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    expected = dict(first)
    for _ in range(3):
        network.zero_grad()
        step = Step(network, method, small_task(), batch(), stream(1, "smart"))
        total, views = training_loss(method, step)
        step.backward(total)
        optimizer.step()
        method.after_step(step, views)
        expected = {
            name: momentum * expected[name] + (1 - momentum) * value.detach()
            for name, value in network.named_parameters()
        }
    for name, value in method.earlier.named_parameters():
        torch.testing.assert_close(value, expected[name], msg=name)
        assert not value.requires_grad
    assert not method.earlier.training
    assert {key.partition(".")[0] for key in method.state.state_dict()} == {"earlier"}
    assert float(method.mechanism(None, [])["earlier"]) > 0


def test_the_copy_holds_the_weights_back() -> None:
    """The gradient of D_Breg points back to the copy: a large μ leaves the outputs where they were."""
    moved = {}
    for proximal in (0.0, 30.0):
        network = model()
        method = smart(network, proximal=proximal, smoothness=0, momentum=1.0)
        before = network(batch().x).detach()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
        for _ in range(10):
            gradients_of(network, method)
            optimizer.step()
        moved[proximal] = float(symmetric_divergence(network(batch().x), before).detach().mean())
    assert 0 < moved[30.0] < 0.3 * moved[0.0]


def test_more_steps_find_a_larger_divergence_within_the_bound() -> None:
    network, own, found = model(), batch(), {}
    for steps in (1, 6):
        method = smart(network, steps=steps, step_size=0.1, proximal=0)
        gradients_of(network, method)
        with torch.no_grad():
            found[steps] = float(
                symmetric_divergence(network(Shifted(own.x, method.shift)), network(own.x)).mean()
            )
        sizes = method.mechanism(None, [])["shift"]
        assert sizes.shape == (7,)
        assert 0 < float(sizes.max()) <= 0.4 + 1e-6
        assert not bool(method.shift[~network.there(own.x)].any())
    assert found[6] > 1.5 * found[1]


def test_a_step_is_of_one_size_at_each_token() -> None:
    gradient = torch.randn(2, 3, 4, generator=stream(0, "gradient"))
    still = torch.zeros(2, 3, 4)
    torch.testing.assert_close(
        climbed(still, gradient, 0.2, 1.0, False).abs().amax(2), torch.full((2, 3), 0.2)
    )
    torch.testing.assert_close(climbed(still, gradient, 1e6, 0.5, False), 0.5 * gradient.sign())
    torch.testing.assert_close(climbed(still, gradient, 1e-5, 1.0, True).abs().amax(2), torch.ones(2, 3))
    for rescale in (False, True):
        assert not bool(climbed(still, still, 0.2, 1.0, rescale).any())


def test_the_variant_is_that_of_the_code_and_the_recipe_is_valid() -> None:
    official = resolve(Use("smart", {"variant": "official"}), "method").options
    assert (official.proximal, official.largest, official.rescale, official.steps) == (0.0, 1.0, True, 1)
    assert read_recipe("recipes/smart.toml").method.name == "smart"
    with pytest.raises(Refused, match="smart shifts embeddings of text: use the model word-cnn"):
        smart(nn.Linear(3, 2))
