"""Graphs of networks: they follow weights, and what would make another function of them is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import robustplug
from robustplug.errors import Refused, RunError
from robustplug.recipe.errors import RecipeError
from robustplug_bounds.ball import Ball
from robustplug_bounds.graph import Graph, folded
from robustplug_bounds.measurement import checked_graph
from robustplug_bounds.propagation import intervals, margins
from robustplug_bounds.reading import read_graph

N, FEATURES, K = 5, 6, 3
Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A linear layer, a parameter for each of its outputs, and a forward."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.last = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, K)
        self.gain = nn.Parameter(torch.ones(FEATURES))
        self.relu, self.how = nn.ReLU(inplace=True), forward

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.how(self, x))
        return outputs


def samples(count: int = N) -> Tensor:
    return torch.rand(count, FEATURES, generator=torch.Generator().manual_seed(1))


def read(model: nn.Module, count: int = N) -> Graph:
    x = samples(count)
    with torch.no_grad():
        return checked_graph(model.eval(), x, model(x))


SCALED: dict[str, Forward] = {
    "product": lambda net, x: net.linear(x) * net.gain,
    "quotient": lambda net, x: net.linear(x) / net.gain,
    "of a view": lambda net, x: net.linear(x) * net.gain.view(1, -1),
    "of a function": lambda net, x: net.linear(x) * net.gain.exp(),
    "sum": lambda net, x: (net.linear(x) + 2 * net.gain).relu(),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_graph_follows_all_that_is_made_of_parameters(name: str) -> None:
    model = Net(SCALED[name]).double().eval()
    x = samples().double()
    ball = Ball.around(x, torch.full((N,), 0.1), "linf", (0.0, 1.0), slack=False)
    graph = folded(read_graph(model, x, fixed=False))
    with torch.no_grad():
        model.gain.copy_(torch.tensor([3.0, -4.0, 0.5, -1.0, 2.0, -0.1]))

    def width(of: Graph) -> Tensor:
        low, high = intervals(of, ball, exact=True)[-1]
        return (high - low).square().sum() + high.sum()

    (found,) = torch.autograd.grad(width(graph), model.gain)
    anew = folded(read_graph(model, x, fixed=False))
    assert torch.equal(width(graph), width(anew))
    slopes, step = torch.zeros_like(found), 1e-6
    for at in range(FEATURES):
        ends = []
        for sign in (1, -1):
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.gain[at] += sign * step
                ends.append(width(folded(read_graph(other, x, fixed=False))))
        slopes[at] = (ends[0] - ends[1]) / (2 * step)
    assert torch.allclose(found, slopes, rtol=1e-5, atol=1e-7)
    assert found.abs().max() > 1e-2


REFUSED: dict[str, tuple[Forward, str]] = {
    "values as an attribute": (lambda net, x: net.linear(x) + 0.1 * x.data, "data"),
    "a transposition": (lambda net, x: net.linear(x.mT.mT), "mT"),
    "less precision": (lambda net, x: net.linear(x.to(torch.bfloat16).to(x.dtype)), "to"),
    "rounded division": (lambda net, x: torch.div(net.linear(x), 0.1, rounding_mode="floor"), "div"),
    "a scaled sum": (lambda net, x: torch.add(net.linear(x), x, alpha=0), "add"),
    "a row for each sample": (
        lambda net, x: net.linear(x) * net.gain.expand(x.size(0), -1),
        "mul has a constant with a row for each sample",
    ),
    "what is written in place": (lambda net, x: _written(net, x), "does not agree with it"),
    "little randomness": (lambda net, x: 1e-4 * net.linear(x) + 1e-4 * torch.randn(FEATURES), "at random"),
}


def _written(net: Net, x: Tensor) -> Tensor:
    before: Tensor = net.linear(x)
    after: Tensor = net.relu(before)
    return before + after


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_does_not_hold_is_refused_by_certificates_and_by_training(name: str) -> None:
    forward, message = REFUSED[name]
    with pytest.raises(Refused, match=message):
        read(Net(forward))
    recipe = {"method": {"use": "ibp", "vicinity": {"use": "linf", "eps": 0.05}}, "train": {"epochs": 1}}
    with pytest.raises((RunError, RecipeError), match=message):
        robustplug.train(recipe, model=Net(forward), data=(samples(40), torch.arange(40) % K), validation=0.2)


def test_small_logits_and_logits_of_zero_agree() -> None:
    small, none = Net(lambda net, x: net.linear(x)), Net(lambda net, x: net.linear(x))
    with torch.no_grad():
        for parameter in small.last.parameters():
            parameter.mul_(1e-6)
        for parameter in none.last.parameters():
            parameter.zero_()
    large = Net(lambda net, x: (1e4 * net.linear(x) + 1e4) - 1e4 * net.linear(x) - 1e4)
    for model in (small, none, large):
        read(model)


def test_weights_that_a_hook_computes_are_refused_and_parametrisations_are_read() -> None:
    hooked = Net(lambda net, x: net.linear(x))
    prune.random_unstructured(hooked.linear, "weight", 0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(Refused, match="linear has a weight that a hook computes"):
        read(hooked)
    prune.remove(hooked.linear, "weight")  # type: ignore[no-untyped-call]
    read(hooked)
    normed = Net(lambda net, x: net.linear(x).relu())
    parametrizations.weight_norm(normed.linear)
    graph, x = read(normed), samples().double()
    ball = Ball.around(x, torch.full((N,), 0.1), "linf", (0.0, 1.0))
    y = normed.double()(x).argmax(1)
    bounds, near = margins(graph, ball, y, "ibp"), torch.rand(N, FEATURES).double()
    outputs = normed(ball.low + near * (ball.high - ball.low))
    assert bool((outputs.gather(1, y[:, None]) - outputs >= bounds - 1e-12).all())


def test_reading_leaves_the_modes_of_the_parts() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Dropout(), nn.Linear(FEATURES, K)).train()
    model[1].eval()
    read_graph(model, samples(), fixed=False)
    assert [part.training for part in model] == [True, False, True]
    model.eval()
    model[1].train()
    with pytest.raises(Refused, match="1 is in training mode"):
        read_graph(model, samples())


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
def test_a_model_of_ones_own_is_trained_in_half_precision(method: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, K),
    )
    recipe = {
        "method": {"use": method, "warmup": 0.0, "rampup": 0.0, "vicinity": {"use": "linf", "eps": 0.02}},
        "train": {"epochs": 1, "batch_size": 16, "device": "cpu", "precision": "bfloat16"},
    }
    data = (samples(48).view(48, 1, 2, 3), torch.arange(48) % K)
    trained = robustplug.train(recipe, model=model, data=data, validation=0.2)
    assert trained.history[-1].train["mechanism/bound"] > 0
