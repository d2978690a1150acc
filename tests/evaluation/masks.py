"""A network on digits, and ways to mask its gradients that leave its decisions as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn


def digits() -> tuple[Tensor, Tensor]:
    """Return all digits (N, 1, 8, 8) in [0, 1] and their classes, in a fixed random order."""
    data: Any = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)[order] / 16
    return x, torch.tensor(data.target)[order]


def trained(eps: float = 0.0, epochs: int = 12, channels: int = 1, before: Any = None) -> nn.Module:
    """Train a small network, adversarially within `eps` if it is above 0, behind a fixed function."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        x, y = digits()
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(1400), 100):
                at = x[rows]
                for _ in range(4 if eps else 0):
                    at = at.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(F.cross_entropy(model(at), y[rows]), at)
                    at = (
                        (at + eps / 2 * slope.sign()).clamp(x[rows] - eps, x[rows] + eps).clamp(0, 1).detach()
                    )
                loss = F.cross_entropy(model(at if before is None else before(at)), y[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model.eval()


class Function(nn.Module):
    """A module that applies a function to a network and an input."""

    def __init__(self, net: nn.Module, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


class Backwards(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradient), None


def _without(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = net(x)
    return result


def _by_numpy(net: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = net(torch.from_numpy(x.detach().numpy().copy()))
    return result


LEVELS = torch.arange(1, 11).view(1, 10, 1, 1) / 11


def thermometer(x: Tensor) -> Tensor:
    """Return ten channels that state which thresholds each pixel exceeds."""
    return (x > LEVELS).float()


# Masks around a plain network, with the kind that an audit must name.
MASKS: dict[str, tuple[str, Callable[[nn.Module, Tensor], Tensor]]] = {
    "detached": ("no gradients", lambda net, x: net(x.detach())),
    "without gradients": ("no gradients", _without),
    "by NumPy": ("no gradients", _by_numpy),
    "quantised": ("zero gradients", lambda net, x: net((x * 7).round() / 7)),
    "staircase": ("zero gradients", lambda net, x: net((x * 64).floor() / 64)),
    "rounded logits": ("zero gradients", lambda net, x: (net(x) * 2).round() / 2),
    "decisions": ("no gradients", lambda net, x: F.one_hot(net(x).argmax(1), 10).float()),
    "saturated": ("saturated", lambda net, x: net(x) * 1000),
    "squeezed": ("scaled logits", lambda net, x: net(x) / 1000),
    "not finite": ("not finite", lambda net, x: net(x + 0 * (x * 0).sqrt())),
    "wrong sign": ("wrong gradients", lambda net, x: net(Backwards.apply(x, lambda g: -g))),
    "random gradients": (
        "wrong gradients",
        lambda net, x: net(Backwards.apply(x, lambda g: torch.randn_like(g) * g.abs().mean())),
    ),
    "noise": ("random", lambda net, x: net(x + 0.1 * torch.randn_like(x))),
    "dropout": ("random", lambda net, x: net(F.dropout(x, 0.2, training=True))),
    "fast sine": ("weak attacks", lambda net, x: net(x + 0.02 * torch.sin(1000 * x))),
}
