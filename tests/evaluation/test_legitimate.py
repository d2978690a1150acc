"""A model that computes the same function is exactly as robust, however it is written."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import robustplug
from robustplug.core.random import isolated
from robustplug.core.types import Feed
from robustplug.evaluation.running.row import LOST

SAMPLES = 100
# About twice the deviation of a difference of two accuracies of 50 %.
ERROR = 0.12
Row = tuple[str, dict[str, Any], float, float]
FAST: Sequence[Row] = [
    ("linf", {"use": "pgd", "steps": 8}, 0.1, ERROR),
    ("l2", {"use": "pgd", "steps": 8}, 0.6, ERROR),
    ("linf", {"use": "mi-fgsm", "steps": 5}, 0.1, ERROR),
    ("linf", {"use": "apgd-ce", "steps": 8}, 0.1, ERROR),
    ("linf", {"use": "square", "queries": 40}, 0.15, ERROR),
]
SLOW: Sequence[Row] = [
    ("l2", {"use": "art:ProjectedGradientDescent", "max_iter": 8}, 0.6, ERROR),
    ("linf", {"use": "art:AutoProjectedGradientDescent", "max_iter": 8, "nb_random_init": 1}, 0.1, ERROR),
    ("l2", {"use": "autoattack", "version": "custom", "attacks": ["apgd-ce"]}, 0.6, ERROR),
    ("linf", {"use": "backward-smoothing"}, 0.1, ERROR),
    ("linf", {"use": "rays", "queries": 60}, 0.15, ERROR),
    ("l2", {"use": "cw-l2", "steps": 30, "search_steps": 2, "initial_c": 10.0}, 0.6, ERROR),
    ("l2", {"use": "deepfool", "steps": 30}, 0.6, ERROR),
]


# They weigh the gradient against a distance, so that a gradient of the wrong size is a wrong one.
WEIGH = ("cw-l2", "deepfool")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


@functools.cache
def network() -> nn.Module:
    task = robustplug.build("task", "digits")
    with isolated(0):
        model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(4):
        for batch in task.batches("train", Feed(batch_size=128, shuffle=True, epoch=epoch)):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(batch.x), batch.y))
            optimizer.step()
    return model.eval()


class Around(nn.Module):
    """A model that does something on the way to another one, or back."""

    def __init__(self, inner: nn.Module, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.function = inner, forward

    def forward(self, x: Tensor) -> Any:
        return self.function(self.inner, x)


class Scaled(torch.autograd.Function):
    """The identity, with a gradient of another size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


def broken_corner(inner: nn.Module, x: Tensor, value: float) -> Any:
    """Lose the gradient of one pixel."""
    mask = torch.zeros_like(x)
    mask[..., 0, 0] = value
    y = x * 1
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient + mask)  # type: ignore[no-untyped-call]
    return inner(y)


class NeverEval(Around):
    def train(self, mode: bool = True) -> NeverEval:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.train()
        return self


def restless(inner: nn.Module, x: Tensor) -> Any:
    for part in inner.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
    return inner(x)


def autocast(inner: nn.Module, x: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return inner(x)


INNER: dict[str, Callable[[nn.Module], nn.Module]] = {
    "in place": lambda f: Around(f, lambda f, x: f(x.sub_(0.3).add_(0.3))),
    "through data": lambda f: Around(f, lambda f, x: f(x.data.mul_(1.0) * 0 + x)),
    "NaN": lambda f: Around(f, lambda f, x: broken_corner(f, x, torch.nan)),
    "infinite": lambda f: Around(f, lambda f, x: broken_corner(f, x, -torch.inf)),
    "tiny": lambda f: Around(f, lambda f, x: f(Scaled.apply(x, 1e-30))),
    "huge": lambda f: Around(f, lambda f, x: f(Scaled.apply(x, 1e25))),
    "never in eval mode": lambda f: NeverEval(f, lambda f, x: f(x)),
    "train flags in forward": lambda f: Around(f, restless),
    "autocast": lambda f: Around(f, autocast),
    "double": lambda f: Around(f, lambda f, x: f(x.double().float())),
    "row by row": lambda f: Around(f, lambda f, x: torch.cat([f(part) for part in torch.split(x, 3)])),
}
OUTER: dict[str, Callable[[nn.Module], nn.Module]] = {
    "logits": lambda f: f,
    "softmax": lambda f: Around(f, lambda f, x: f(x).softmax(1)),
    "log softmax": lambda f: Around(f, lambda f, x: f(x).log_softmax(1)),
    "sigmoid": lambda f: Around(f, lambda f, x: (f(x) - 3).sigmoid()),
    "half": lambda f: Around(f, lambda f, x: f(x).half()),
    "tuple": lambda f: Around(f, lambda f, x: (f(x), None)),
}


def accuracy(model: Any, norm: str, attack: dict[str, Any], eps: float) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = robustplug.evaluate(
            model,
            task="digits",
            vicinity={"use": norm, "eps": eps},
            attacks=[attack],
            samples=SAMPLES,
            seed=0,
        )
    assert not result.attacks[-1].skipped
    return result.attacks[-1].accuracy


@functools.cache
def plain(number: int, slow: bool = False) -> float:
    norm, attack, eps, _ = (SLOW if slow else FAST)[number]
    return accuracy(network(), norm, attack, eps)


def check(inner: Sequence[str], outer: str, number: int, slow: bool = False) -> None:
    import copy

    norm, attack, eps, error = (SLOW if slow else FAST)[number]
    model = copy.deepcopy(network())
    for name in inner:
        model = INNER[name](model)
    model = OUTER[outer](model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert abs(accuracy(model, norm, attack, eps) - plain(number, slow)) <= error
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


WRAPPINGS = (
    st.lists(st.sampled_from(sorted(INNER)), max_size=3, unique=True),
    st.sampled_from(sorted(OUTER)),
)


@pytest.mark.parametrize(("number", "name"), list(enumerate(["NaN", "tiny", "in place", "autocast", "huge"])))
def test_one_wrapping_for_each_attack(number: int, name: str) -> None:
    outer = ("sigmoid", "softmax", "half", "log softmax", "tuple")[number]
    check([name, "train flags in forward"], outer, number)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*WRAPPINGS, st.integers(0, len(FAST) - 1))
def test_any_wrapping_is_as_robust(inner: list[str], outer: str, number: int) -> None:
    check(inner, outer, number)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*WRAPPINGS, st.integers(0, len(SLOW) - 1))
def test_any_wrapping_is_as_robust_under_other_attacks(inner: list[str], outer: str, number: int) -> None:
    if SLOW[number][1]["use"] in WEIGH:
        inner = [name for name in inner if name not in ("tiny", "huge")]
    check(inner, outer, number, slow=True)


def test_what_was_found_is_told() -> None:
    model = NeverEval(network(), lambda f, x: broken_corner(f, x, torch.nan).softmax(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = robustplug.evaluate(
            model, task="digits", attacks=[{"use": "fgsm"}], vicinity={"use": "linf", "eps": 0.1}, samples=40
        )
    notes = [str(each.message) for each in caught]
    for said in ("probabilities", "BatchNorm stays in training mode", "no finite numbers"):
        assert sum(said in note for note in notes) == 1
    row = result.attacks[-1]
    assert row.measures[LOST].mean == pytest.approx(1 / 64)
    assert LOST not in result.attacks[0].measures
    assert result.meta["outputs"] == "probabilities"


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_the_caller_changes_nothing(mode: str) -> None:
    batch = next(iter(robustplug.build("task", "digits").batches("test", Feed(batch_size=30, samples=30))))
    attack = {"use": "pgd", "steps": 3}
    wanted = robustplug.attack(network(), batch.x, batch.y, attack, vicinity={"use": "linf", "eps": 0.1})
    with MODES[mode]():
        x, y = batch.x * 1, batch.y * 1
        kept = x.clone()
        found = robustplug.attack(network(), x, y, attack, vicinity={"use": "linf", "eps": 0.1})
    assert torch.equal(found, wanted)
    assert torch.equal(x, kept)


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = Net().eval()
        model.load_state_dict(network().state_dict())
    norm, attack, eps, _ = FAST[0]
    assert accuracy(model, norm, attack, eps) == plain(0)


@pytest.mark.parametrize("decorate", [torch.no_grad(), torch.inference_mode()])
@pytest.mark.parametrize("use", ["pgd", "art:ProjectedGradientDescent", "torchattacks:PGD"])
def test_a_forward_without_gradients_is_named(decorate: Any, use: str) -> None:
    if use.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    model = Around(network(), decorate(lambda f, x: f(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = robustplug.evaluate(
            model, task="digits", attacks=[{"use": use}], vicinity={"use": "linf", "eps": 0.1}, samples=10
        )
    assert "has no gradients" in result.attacks[-1].skipped
