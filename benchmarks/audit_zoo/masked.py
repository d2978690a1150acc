"""The masked models: a network, often a fragile one, and what hides its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustplug.api import isolated

from . import masks, nets
from .entries import Entry, Made
from .masks import Masked
from .workshop import Plan, Workshop

CNN = nets.cnn
PLAIN, MLP = Plan(CNN), Plan(nets.mlp, epochs=10)
STRONG = Plan(CNN, "pgd-at", epochs=10)

# A network, and the changes around it: name, kind, plan, changes, radius.
WRAPPED: tuple[tuple[str, str, Plan, dict[str, Any], float], ...] = (
    ("detached", "detached", PLAIN, {"before": Tensor.detach}, 0.15),
    ("detached-mlp", "detached", MLP, {"before": Tensor.detach}, 0.1),
    ("detached-strong", "detached", STRONG, {"before": Tensor.detach}, 0.1),
    ("no-grad", "detached", PLAIN, {"no_grad": True}, 0.1),
    ("jpeg", "detached", PLAIN, {"before": masks.jpeg(75)}, 0.15),
    ("decisions", "decisions", PLAIN, {"after": masks.decisions}, 0.15),
    ("decisions-mlp", "decisions", MLP, {"after": masks.decisions}, 0.05),
    ("quantised-4", "quantised", PLAIN, {"before": masks.rounded(4)}, 0.15),
    ("staircase-64", "quantised", PLAIN, {"before": masks.staircase(64)}, 0.15),
    ("staircase-mlp", "quantised", MLP, {"before": masks.staircase(64)}, 0.1),
    ("input-noise", "stochastic", PLAIN, {"before": masks.noisy(0.2)}, 0.15),
    ("saturated", "saturated", PLAIN, {"after": lambda z: 1000 * z}, 0.15),
    ("saturated-mlp", "saturated", MLP, {"after": lambda z: 1000 * z}, 0.1),
    ("temperature-100", "saturated", PLAIN, {"after": lambda z: 100 * z}, 0.15),
    ("probabilities-20", "saturated", PLAIN, {"after": lambda z: functional.softmax(20 * z, 1)}, 0.15),
    ("sigmoids", "saturated", PLAIN, {"after": lambda z: torch.sigmoid(z / 2)}, 0.15),
    ("temperature-0.001", "squeezed", PLAIN, {"after": lambda z: z / 1000}, 0.15),
    ("rounded-logits", "rounded", PLAIN, {"after": torch.round}, 0.15),
    ("rounded-probabilities", "rounded", MLP, {"after": masks.hundredths}, 0.1),
    ("nan-gradient", "nan-gradient", PLAIN, {"before": masks.not_a_number}, 0.15),
    ("wrong-sign", "wrong-gradient", PLAIN, {"before": masks.gradient_times(-1.0)}, 0.15),
    ("random-gradient", "wrong-gradient", PLAIN, {"before": masks.gradient_times(None)}, 0.15),
    ("zero-gradient", "detached", PLAIN, {"before": masks.gradient_times(0.0)}, 0.15),
    ("shattered", "shattered", PLAIN, {"before": masks.shattered(0.02, 1000.0)}, 0.15),
    ("shattered-mlp", "shattered", MLP, {"before": masks.shattered(0.03, 3000.0)}, 0.1),
)


ON_MNIST = Plan(partial(nets.cnn, side=28), epochs=4, data="mnist")
WRAPPED_MNIST: tuple[tuple[str, str, Plan, dict[str, Any], float], ...] = (
    ("mnist-detached", "detached", ON_MNIST, {"before": Tensor.detach}, 0.15),
    ("mnist-staircase", "quantised", ON_MNIST, {"before": masks.staircase(32)}, 0.15),
    ("mnist-saturated", "saturated", ON_MNIST, {"after": lambda z: 1000 * z}, 0.15),
    ("mnist-noise", "stochastic", ON_MNIST, {"before": masks.noisy(0.3)}, 0.15),
)


@dataclass(frozen=True)
class Drawn:
    """A masked model that is more than changes around a network."""

    name: str
    kind: str
    make: Callable[[Workshop], Any]
    stand_ins: Callable[[Workshop, Any], Sequence[nn.Module]]
    radius: float
    norm: str = "linf"


class Mean(nn.Module):
    """Return the mean logits over several calls, on inputs with a little noise of their own.

    Args:
        net: the network.
        draws: number of calls.
        noise: size of the noise.
    """

    def __init__(self, net: nn.Module, draws: int = 8, noise: float = 0.0) -> None:
        super().__init__()
        self.net, self.draws, self.noise = net, draws, noise

    def forward(self, x: Tensor) -> Tensor:
        many = x.repeat(self.draws, *(1,) * (x.dim() - 1))
        if self.noise:
            many = many + self.noise * torch.randn_like(many)
        result: Tensor = self.net(many).view(self.draws, len(x), -1).mean(0)
        return result


def masked(shop: Workshop) -> Iterator[Entry]:
    """Yield the masked models."""
    for name, kind, plan, changes, radius in WRAPPED + (WRAPPED_MNIST if shop.mnist else ()):

        def wrap(plan: Plan = plan, changes: dict[str, Any] = changes, radius: float = radius) -> Made:
            return _made(shop, Masked(shop.trained(plan), **changes), radius, data=plan.data)

        random = kind == "stochastic"
        yield Entry(name, kind, wrap, _wrapped_stand_ins(random), random)
    for drawn in DRAWN:

        def build(drawn: Drawn = drawn) -> Made:
            return _made(shop, drawn.make(shop), drawn.radius, drawn.norm)

        yield Entry(drawn.name, drawn.kind, build, partial(drawn.stand_ins, shop), drawn.kind == "stochastic")


def _wrapped_stand_ins(random: bool) -> Callable[[Any], Sequence[nn.Module]]:
    return lambda module: (module.net, Mean(module)) if random else (module.net,)


def _made(shop: Workshop, module: Any, radius: float, norm: str = "linf", data: str = "digits") -> Made:
    return Made(module, shop.samples(data, "test"), {"use": norm, "eps": radius}, (0.0, 1.0))


def _thermometer(slope: float | None) -> nn.Module:
    return nets.cnn(channels=16, first=(nets.Thermometer(16, slope),))


def _thermometer_stand_ins(shop: Workshop, module: Any) -> Sequence[nn.Module]:
    found = []
    for slope in (20.0, 60.0):
        soft = _thermometer(slope)
        soft.load_state_dict(module.state_dict())
        found.append(soft.eval())
    return found


THERMOMETER = Plan(partial(_thermometer, None))


def _denoised(shop: Workshop, cut: bool) -> nn.Module:
    x, _ = shop.samples("digits", "train")
    rng = torch.Generator().manual_seed(0)

    def loss(net: nn.Module) -> Tensor:
        noise = 0.15 * torch.randn(x.shape, generator=rng)
        result: Tensor = (net((x + noise).clamp(0, 1)) - x).square().mean()
        return result

    with isolated(0):
        net = nets.Autoencoder()
    denoiser = shop.fitted(net, loss, 400)
    return Masked(shop.trained(PLAIN), before=lambda x: denoiser(x).detach() if cut else denoiser(x))


def _behind(change: masks.Change) -> Plan:
    """Return the plan of a network that is trained behind a change of its inputs."""
    return Plan(partial(nets.cnn, first=(masks.Front(change),)), epochs=25)


def _without_front(shop: Workshop, module: Any) -> Sequence[nn.Module]:
    return (module[1:], Mean(module))


def _winners(share: float, recipe: str = "erm") -> Plan:
    return Plan(partial(nets.mlp, (256, 256), partial(nets.Winners, share)), recipe, epochs=20)


def _with_noise(shop: Workshop, module: nn.Module) -> Sequence[nn.Module]:
    return Mean(module, 16, 0.05), Mean(module, 16, 0.15), shop.trained(PLAIN)


def _giant_stand_ins(shop: Workshop, module: Any) -> Sequence[nn.Module]:
    found = []
    for scale in (5.0, 20.0, 100.0):
        smooth = nets.Giant(scale)
        smooth.load_state_dict(module.state_dict())
        found.append(smooth.eval())
    return found


def _neighbours(shop: Workshop, softness: float | None) -> nn.Module:
    features = nn.Sequential(*list(shop.trained(PLAIN))[:-1])  # type: ignore[call-overload]
    return masks.Neighbours(features, *shop.samples("digits", "train"), softness=softness)


PRUNED = Plan(partial(nets.mlp, (128, 128)), epochs=20)


def _with_pruning(shop: Workshop) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in shop.trained(PRUNED):  # type: ignore[attr-defined]
        layers.append(layer)
        if isinstance(layer, nn.ReLU):
            layers.append(masks.Pruned(0.5))
    return nn.Sequential(*layers).eval()


class Dropping(nn.Module):
    """Drop activations in every call."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.share, training=True)


DROPPING = Plan(partial(nets.mlp, (128, 128), lambda: nn.Sequential(nn.ReLU(), Dropping(0.4))), epochs=20)


def _squeezed(alpha: float, epochs: int) -> Plan:
    return Plan(
        CNN, "label-smoothing", epochs=epochs, method={"label_map": {"use": "smooth", "alpha": alpha}}
    )


def _hidden(shop: Workshop) -> Callable[[Tensor], Tensor]:
    """Return a function that shows neither gradients nor layers."""
    net = shop.trained(PLAIN)

    def scores(x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = net(x)
        return result

    return scores


def _none(shop: Workshop, module: nn.Module) -> Sequence[nn.Module]:
    return ()


def _whole_denoiser(shop: Workshop, module: nn.Module) -> Sequence[nn.Module]:
    return (_denoised(shop, cut=False),)


def _not_pruned(shop: Workshop, module: nn.Module) -> Sequence[nn.Module]:
    return shop.trained(PRUNED), Mean(module)


def _net(plan: Plan) -> Callable[[Workshop], nn.Module]:
    return lambda shop: shop.trained(plan)


DRAWN: tuple[Drawn, ...] = (
    Drawn("hidden-function", "detached", _hidden, lambda shop, _: (shop.trained(PLAIN),), 0.15),
    Drawn("thermometer", "detached", _net(THERMOMETER), _thermometer_stand_ins, 0.15),
    Drawn("denoiser", "detached", partial(_denoised, cut=True), _whole_denoiser, 0.15),
    Drawn("median", "detached", _net(_behind(masks.MEDIAN)), _without_front, 0.15),
    Drawn("resize", "stochastic", _net(_behind(masks.moved)), _without_front, 0.15),
    Drawn("winners-0.1", "shattered", _net(_winners(0.1)), _with_noise, 0.15),
    Drawn("winners-0.05", "shattered", _net(_winners(0.05)), _with_noise, 0.1),
    Drawn("winners-fgsm", "shattered", _net(_winners(0.05, "fast-at")), _with_noise, 0.15),
    Drawn("squeezed-0.9", "squeezed", _net(_squeezed(0.9, 40)), _none, 0.15),
    Drawn("squeezed-0.95", "squeezed", _net(_squeezed(0.95, 60)), _none, 0.1),
    Drawn("giant-1000", "shattered", _net(Plan(partial(nets.Giant, 1e3), epochs=20)), _giant_stand_ins, 0.15),
    Drawn("giant-10000", "shattered", _net(Plan(partial(nets.Giant, 1e4), epochs=20)), _giant_stand_ins, 0.1),
    Drawn(
        "neighbours",
        "decisions",
        partial(_neighbours, softness=None),
        lambda shop, _: (_neighbours(shop, 0.1), shop.trained(PLAIN)),
        0.15,
    ),
    Drawn("dropout-on", "stochastic", _net(DROPPING), lambda shop, net: (Mean(net),), 0.15),
    Drawn("pruned", "stochastic", _with_pruning, _not_pruned, 0.15),
    Drawn(
        "detector",
        "detector",
        lambda shop: masks.Detector(shop.trained(PLAIN), shop.trained(STRONG)),
        lambda shop, _: (shop.trained(PLAIN), shop.trained(STRONG)),
        0.15,
    ),
    Drawn(
        "detached-l2",
        "detached",
        lambda shop: Masked(shop.trained(PLAIN), Tensor.detach),
        lambda shop, _: (shop.trained(PLAIN),),
        1.0,
        "l2",
    ),
    Drawn(
        "quantised-l2",
        "quantised",
        lambda shop: Masked(shop.trained(PLAIN), masks.rounded(8)),
        lambda shop, _: (shop.trained(PLAIN),),
        1.0,
        "l2",
    ),
    Drawn(
        "saturated-l2",
        "saturated",
        lambda shop: Masked(shop.trained(PLAIN), after=lambda z: 1000 * z),
        lambda shop, _: (shop.trained(PLAIN),),
        1.0,
        "l2",
    ),
)
