"""The honest models, fragile and strong: their gradients lead to the adversarial examples that exist."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import nets
from .entries import Entry, Made
from .masks import Masked
from .workshop import Plan, Workshop

CNN = nets.cnn
BATCHNORM = partial(nets.cnn, norm=True)

# Name, plan, radii: "name@radius" is an entry for each radius.
PLANS: tuple[tuple[str, Plan, tuple[float, ...]], ...] = (
    ("plain", Plan(CNN), (0.03, 0.1, 0.2)),
    ("plain-mlp", Plan(nets.mlp, epochs=20), (0.05, 0.15)),
    ("linear", Plan(partial(nets.mlp, ()), epochs=10), (0.1,)),
    ("tiny", Plan(partial(nets.mlp, (8,)), epochs=30), (0.1,)),
    ("wide", Plan(partial(nets.mlp, (1024,)), epochs=15), (0.1,)),
    ("deep", Plan(partial(nets.mlp, (48,) * 6, nn.Tanh), epochs=20), (0.1,)),
    ("label-smoothing", Plan(CNN, "label-smoothing"), (0.1,)),
    ("tanh", Plan(partial(nets.mlp, activation=nn.Tanh), epochs=20), (0.1,)),
    ("sine", Plan(partial(nets.mlp, activation=nets.Sine), lr=0.05), (0.05, 0.15)),
    ("silu", Plan(partial(nets.cnn, activation=nn.SiLU)), (0.1,)),
    ("silu-pgd-at", Plan(partial(nets.cnn, activation=nn.SiLU), "pgd-at", epochs=8), (0.1,)),
    ("average-pooling", Plan(partial(nets.cnn, pool=lambda: nn.AvgPool2d(2))), (0.1,)),
    ("batchnorm", Plan(BATCHNORM), (0.1,)),
    ("batchnorm-pgd-at", Plan(BATCHNORM, "pgd-at", epochs=8), (0.1,)),
    ("dropout", Plan(partial(nets.mlp, (128, 64), dropout=0.3), epochs=25), (0.1,)),
    ("transformer", Plan(nets.Transformer, epochs=12, lr=0.05), (0.1,)),
    ("transformer-fast-at", Plan(nets.Transformer, "fast-at", epochs=10, lr=0.05), (0.1,)),
    ("normalised", Plan(partial(nets.cnn, first=(nets.Normalised(0.3, 0.4),))), (0.1,)),
    ("pgd-at-0.05", Plan(CNN, "pgd-at", 0.05, epochs=8), (0.05, 0.15)),
    ("pgd-at-0.1", Plan(CNN, "pgd-at", 0.1, epochs=10), (0.1, 0.2)),
    ("pgd-at-0.15", Plan(partial(nets.cnn, 12), "pgd-at", 0.15, epochs=12, lr=0.05), (0.15,)),
    ("cat", Plan(CNN, "cat", epochs=10, lr=0.03), (0.1,)),
    ("iaat", Plan(CNN, "iaat", epochs=10, method={"warmup": 2}), (0.1,)),
    ("trades-1", Plan(CNN, "trades", epochs=8, method={"beta": 1}), (0.1,)),
    ("trades-6", Plan(CNN, "trades", epochs=8), (0.1,)),
    ("fast-trades", Plan(CNN, "fast-trades", epochs=15), (0.1,)),
    ("backward-smoothing", Plan(CNN, "backward-smoothing", epochs=15), (0.1,)),
    ("fast-at", Plan(CNN, "fast-at"), (0.1,)),
    ("n-fgsm", Plan(CNN, "n-fgsm"), (0.1,)),
    ("free-at", Plan(CNN, "free-at", epochs=8), (0.1,)),
    ("bilateral", Plan(CNN, "bilateral", epochs=12), (0.1,)),
    ("sprout", Plan(CNN, "sprout", epochs=25), (0.05,)),
    ("robmask", Plan(BATCHNORM, "robmask", epochs=6), (0.1,)),
    ("advprop", Plan(BATCHNORM, "advprop", epochs=6), (0.1,)),
    ("interpolated", Plan(CNN, "interpolated", epochs=10), (0.1,)),
    ("mixup", Plan(CNN, "mixup"), (0.1,)),
    ("stability", Plan(CNN, "stability"), (0.1,)),
    ("gaussian", Plan(CNN, "gaussian"), (0.1,)),
    ("overfitted-fgsm", Plan(CNN, "fast-at", 0.4, epochs=25), (0.2,)),
    ("plain-l2", Plan(CNN, norm="l2", eps=0.5, seed=1), (0.5,)),
    ("pgd-at-l2", Plan(CNN, "pgd-at", 0.5, "l2", epochs=10, lr=0.05), (0.5, 1.0)),
)
MNIST = partial(nets.cnn, side=28)
ON_MNIST: tuple[tuple[str, Plan, tuple[float, ...]], ...] = (
    ("mnist-plain", Plan(MNIST, epochs=4, data="mnist"), (0.05, 0.15)),
    ("mnist-pgd-at", Plan(MNIST, "pgd-at", epochs=4, data="mnist"), (0.1,)),
    ("mnist-n-fgsm", Plan(MNIST, "n-fgsm", epochs=5, data="mnist"), (0.1,)),
)


def honest(shop: Workshop) -> Iterator[Entry]:
    """Yield the honest models."""
    for name, plan, radii in PLANS + (ON_MNIST if shop.mnist else ()):
        for radius in radii:
            yield Entry(
                f"{name}@{radius}", "", partial(_made, shop, partial(shop.trained, plan), plan, radius)
            )
    plain, other = Plan(CNN), Plan(CNN, seed=1)
    strong = Plan(CNN, "pgd-at", epochs=10)
    changed: tuple[tuple[str, Callable[[], Any], float], ...] = (
        ("ensemble", lambda: Ensemble(shop.trained(plain), shop.trained(other)), 0.1),
        ("ensemble-pgd-at", lambda: Ensemble(shop.trained(strong), shop.trained(plain)), 0.1),
        ("log-probabilities", lambda: Masked(shop.trained(plain), after=nn.LogSoftmax(1)), 0.1),
        ("probabilities", lambda: Masked(shop.trained(plain), after=nn.Softmax(1)), 0.1),
        ("float64", lambda: Double(shop.trained(strong)), 0.1),
    )
    for name, make, radius in changed:
        yield Entry(f"{name}@{radius}", "", partial(_made, shop, make, plain, radius))
    for name, fit, radius in (("forest", forest, 0.1), ("boosted-trees", boosted, 0.05)):
        make = partial(_made, shop, partial(fit, shop), plain, radius)
        yield Entry(f"{name}@{radius}", "", make, lambda module: (shop.trained(plain),))
    yield Entry(
        "linear-svm@0.1",
        "",
        partial(_made, shop, partial(svm, shop), plain, 0.1),
        lambda module: (_linear(module),),
    )


def _made(shop: Workshop, make: Callable[[], Any], plan: Plan, radius: float) -> Made:
    return Made(make(), shop.samples(plan.data, "test"), {"use": plan.norm, "eps": radius}, (0.0, 1.0))


class Ensemble(nn.Module):
    """Return the mean of the logits of several networks."""

    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


class Double(nn.Module):
    """Compute a network in float64."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).double()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x.double())
        return result


def _rows(shop: Workshop) -> tuple[Any, Any]:
    x, y = shop.samples("digits", "train")
    return x.flatten(1).numpy(), y.numpy()


def forest(shop: Workshop) -> Any:
    """Fit a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(30, random_state=0).fit(*_rows(shop))


def boosted(shop: Workshop) -> Any:
    """Fit LightGBM's boosted trees."""
    from lightgbm import LGBMClassifier

    trees = LGBMClassifier(n_estimators=40, num_leaves=8, n_jobs=1, random_state=0, verbose=-1)
    return trees.fit(*_rows(shop))


def svm(shop: Workshop) -> Any:
    """Fit a linear support vector machine."""
    from sklearn.svm import LinearSVC

    return LinearSVC(C=0.1, random_state=0).fit(*_rows(shop))


def _linear(fitted: Any) -> nn.Module:
    """Return a linear support vector machine as a network."""
    net = nets.mlp(())
    weights = {"1.weight": torch.tensor(fitted.coef_), "1.bias": torch.tensor(fitted.intercept_)}
    net.load_state_dict(weights)
    return net
