"""FreeLB against a transcription of Algorithm 1 with a backward pass for each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Feed, Method, Refused, Step, View, isolated, stream, training_loss
from robustplug_text.freelb import ascended, start
from robustplug_text.words import Shifted

from .small import small_task


def model(dropout: float = 0.0) -> Any:
    with isolated(3):
        made: Any = robustplug.build(
            "model", "word-cnn", width=10, filters=6, sizes=[1, 2], dropout=dropout, info=small_task().info
        )
    return made.double()


def freelb(network: nn.Module, **options: Any) -> Method[Any]:
    method: Method[Any] = robustplug.build("method", "freelb", **options)
    method.setup(network, small_task())
    return method


def batch() -> Batch:
    first: Batch = next(iter(small_task().batches("train", Feed(batch_size=9))))
    return first


def gradients_of(
    network: nn.Module, method: Method[Any], weights: Tensor | None = None
) -> tuple[float, dict[str, Tensor]]:
    step = Step(network, method, small_task(), batch(), stream(1, "freelb"))
    network.zero_grad()
    total, _ = training_loss(method, step, class_weights=weights)
    step.backward(total)
    assert (step.meter.forwards, step.meter.backwards) == (method.cost().forwards * 9,) * 2
    return float(total.detach()), {
        name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
    }


def transcribed(
    network: Any, steps: int, size: float, largest: float, weights: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """Algorithm 1, line by line: K passes forwards and backwards, whose gradients `backward` adds up."""
    own = batch()
    shift = start(network.there(own.x), network.width, 0.3, stream(1, "freelb"))
    network.zero_grad()
    total = 0.0
    for _ in range(steps):
        shift = shift.detach().requires_grad_()
        losses = F.cross_entropy(network(Shifted(own.x, shift)).float(), own.y, reduction="none")
        loss = (weights[own.y] * losses).mean() / steps
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
        assert shift.grad is not None
        moved = shift.detach().clone()
        for row, gradient in enumerate(shift.grad):
            moved[row] += size * gradient.float() / gradient.float().norm()
            if largest and moved[row].norm() > largest:
                moved[row] *= largest / moved[row].norm()
        shift = moved
    return total, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("weights", [None, [0.5, 2.0]])
@pytest.mark.parametrize(("steps", "largest"), [(1, 0.5), (2, 0.0), (4, 0.5)])
def test_one_backward_adds_up_the_gradients_of_all_steps(
    steps: int, largest: float, weights: list[float] | None
) -> None:
    network = model()
    method = freelb(network, steps=steps, step_size=0.4, largest=largest, start=0.3)
    given = None if weights is None else torch.tensor(weights)
    total, found = gradients_of(network, method, given)
    expected_total, expected = transcribed(
        model(), steps, 0.4, largest, torch.ones(2) if given is None else given
    )
    assert total == pytest.approx(expected_total, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_all_steps_have_the_same_dropout() -> None:
    """Without an ascent, all steps are the same pass: three of them are as one."""
    one, three = (
        gradients_of(network, freelb(network, steps=steps, step_size=0.0, start=0.3))
        for steps in (1, 3)
        for network in [model(dropout=0.5).train()]
    )
    assert one[0] == pytest.approx(three[0], rel=1e-6)
    for name, gradient in one[1].items():
        torch.testing.assert_close(three[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_the_ascent_raises_the_loss() -> None:
    network = model()
    own = batch()
    losses = {}
    for steps in (1, 8):
        method = freelb(network, steps=steps, step_size=0.3, largest=0.0, start=0.01)
        gradients_of(network, method)
        shift = method.shift  # type: ignore[attr-defined]
        with torch.no_grad():
            losses[steps] = float(F.cross_entropy(network(Shifted(own.x, shift)).float(), own.y))
    assert losses[8] > losses[1] + 0.05


def test_lengths_are_those_of_whole_texts() -> None:
    there = torch.tensor([[True, True, False], [True, False, False]])
    shift = start(there, 4, 0.5, stream(0, "start"))
    assert not bool(shift[~there].any())
    # U(−1, 1) of n values has a length below √n.
    assert float(shift.flatten(1).norm(dim=1).max()) < 0.5
    gradient = torch.randn(2, 3, 4, generator=stream(0, "gradient"))
    moved = ascended(torch.zeros(2, 3, 4), gradient, 0.2, 0.0)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), 0.2))
    far = ascended(torch.ones(2, 3, 4), gradient, 0.2, 0.7)
    torch.testing.assert_close(far.flatten(1).norm(dim=1), torch.full((2,), 0.7))
    torch.testing.assert_close(ascended(shift, torch.zeros_like(gradient), 0.2, 9.0), shift)


def test_mechanism_is_the_length_of_the_shift() -> None:
    network = model()
    method = freelb(network, steps=3, step_size=0.4, largest=0.5, start=0.3)
    gradients_of(network, method)
    lengths = method.mechanism(None, [])["shift"]  # type: ignore[arg-type]
    assert lengths.shape == (9,)
    assert 0 < float(lengths.max()) <= 0.5 + 1e-5


def test_a_plain_view_has_the_plain_loss() -> None:
    network = model()
    method = freelb(network)
    step = Step(network, method, small_task(), batch(), stream(0, "plain"))
    losses = step.objective(View.of(step.batch))
    torch.testing.assert_close(
        losses, F.cross_entropy(network(step.batch.x).float(), step.batch.y, reduction="none")
    )


def test_models_without_embeddings_are_refused() -> None:
    with pytest.raises(Refused, match="word-cnn"):
        freelb(nn.Linear(3, 2))


def test_models_that_change_their_embeddings_are_refused() -> None:
    network = model()
    forward = network.forward
    network.forward = lambda x: forward(x) * (3 if isinstance(x, Shifted) else 1)
    with pytest.raises(Refused, match="looked them up"):
        freelb(network)
