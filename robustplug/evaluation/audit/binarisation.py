"""The binarisation test: do attacks find adversarial examples that are known to exist on this very model?

Zimmermann et al. 2022 (arXiv:2206.13991 §4). Around each clean sample, points inside its ball get the label
0, and one point of its boundary the label 1. A linear readout of the model's features separates them, so an
adversarial example exists: that point. The share of the samples on which an attack finds one is the attack's
power. It is high on an honest model, however fragile, and low where the gradients are of no use.

Different from the paper: the readout is the discriminant of the two sides in closed form, not a logistic
regression. Samples are left out if it cannot separate their sides, or if random points find an example, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.protocols import Vicinity
from ...core.random import derive
from ...core.types import take

# Points inside of each ball, the radius of their ball relative to it, and steps of the attack.
INNER, INSIDE, STEPS, RESTARTS = 200, 0.8, 50, 4
# Features beyond this number are summed up by a random projection.
LARGEST = 4096


@dataclass(frozen=True)
class Power:
    """Hold the outcome of the test.

    Attributes:
        tested: number of samples whose two sides the readout separates, and that random points do not break.
        found: number of these on which the attack found a point of the boundary's side.
        by_chance: number of other samples, on which random points found one.
        absent: why the test could not be run; "" if it could.
    """

    tested: int = 0
    found: int = 0
    by_chance: int = 0
    absent: str = ""


def features_of(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from inputs to features (N, D): the input of the last linear layer, or the outputs.

    Args:
        model: the model.
        x: some inputs, to see which layers a forward pass calls.
    """
    called: list[tuple[str, int]] = []
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    with contextlib.ExitStack() as stack:
        for name, layer in linear.items():

            def note(_: nn.Module, __: Any, made: Tensor, name: str = name) -> None:
                called.append((name, len(made)))

            stack.callback(layer.register_forward_hook(note).remove)
        with torch.no_grad():
            output = model(x[:2])
    last, rows = called[-1] if called else ("", 0)
    # A layer that is called several times, or on many rows for each sample, has inputs of equal standing.
    if [name for name, _ in called].count(last) != 1 or rows != len(output):
        last = ""
    if not last or linear[last].out_features != output.shape[1]:
        return lambda inputs: model(inputs).float()

    def features(inputs: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = linear[last].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        try:
            model(inputs)
        finally:
            handle.remove()
        return seen[-1].flatten(1).float()

    return features


def readout(inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return weights (D,) and threshold that separate inner features (M, D) from outer ones (1, D).

    The third value is whether they do: w·f > threshold for the outer point, below for all inner ones.
    """
    inner, outer = inner.double(), outer.double()
    mean = inner.mean(0)
    centred, apart = inner - mean, (outer - mean)[0]
    gram = centred @ centred.T / len(inner)
    ridge = 1e-3 * float(gram.diagonal().mean()) + 1e-12
    # (CᵀC/M + λ)⁻¹ v by the identity of Woodbury: M × M instead of D × D.
    inside = torch.linalg.solve(gram + ridge * torch.eye(len(inner), dtype=gram.dtype), centred @ apart)
    weights = (apart - centred.T @ inside / len(inner)) / ridge
    scale = weights.norm().clamp_min(1e-300)
    weights = weights / scale
    top, point = float((inner @ weights).max()), float((outer @ weights)[0])
    threshold = torch.tensor((top + point) / 2)
    return weights.float(), threshold.float(), point - top > 1e-6 * max(abs(point), abs(top), 1e-6)


def power(
    model: nn.Module, x: Tensor, vicinity: Vicinity, radius: Tensor, seed: int, gradients: bool = True
) -> Power:
    """Run the test on some samples.

    Args:
        model: the model, in eval mode.
        x: clean inputs (N, …).
        vicinity: the threat model.
        radius: radius of each sample, (N,).
        seed: seed of the points.
        gradients: whether the model has gradients.
    """
    if not gradients:
        return Power(absent="the model has no gradients")
    rng = torch.Generator(x.device).manual_seed(derive(seed, "binarisation"))
    features = features_of(model, x)
    weights, thresholds, kept = [], [], []
    chance = 0
    for number, (sample, size) in enumerate(zip(x, radius, strict=True)):
        many = sample.expand(INNER, *sample.shape).contiguous()
        inside = vicinity.random_point(many, (INSIDE * size).expand(INNER), rng)
        inside[0] = sample
        outer = _boundary(vicinity, sample[None], size[None], rng)
        with torch.no_grad():
            found = features(torch.cat([inside, outer])).cpu()
        if found.shape[1] > LARGEST:
            return Power(absent=f"its {found.shape[1]} features are more than {LARGEST}")
        weight, threshold, separated = readout(found[:-1], found[-1:])
        if not separated or not bool(weight.isfinite().all()):
            continue
        with torch.no_grad():
            blind = features(vicinity.random_point(many, size.expand(INNER), rng)).cpu()
        if bool((blind @ weight > threshold).any()):
            chance += 1
            continue
        weights.append(weight)
        thresholds.append(threshold)
        kept.append(number)
    if not kept:
        reason = "random points find what no attack should need to find"
        return Power(0, 0, chance, reason if chance else "no readout separates a ball from its boundary")
    rows = torch.tensor(kept, device=x.device)
    w, t = torch.stack(weights).to(x.device), torch.stack(thresholds).to(x.device)
    won = _attack(features, take(x, rows), w, t, vicinity, radius[rows], rng)
    return Power(len(kept), int(won.sum()), chance)


def _boundary(vicinity: Vicinity, x: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
    """Return a point on the boundary of each ball: from a random one, in the steepest direction to it."""
    point = vicinity.random_point(x, radius, rng)
    away = vicinity.steepest(point - x)
    return vicinity.project(x + radius.view(-1, *(1,) * (x.dim() - 1)) * away, x, radius)


def _attack(
    features: Callable[[Tensor], Tensor],
    x: Tensor,
    weights: Tensor,
    thresholds: Tensor,
    vicinity: Vicinity,
    radius: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Return on which samples PGD finds a point beyond the threshold of its readout, bool (N,)."""
    won = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    wide = (-1, *(1,) * (x.dim() - 1))
    for restart in range(RESTARTS):
        left = (~won).nonzero()[:, 0]
        if not len(left):
            break
        origin, near, w, t = x[left], radius[left], weights[left], thresholds[left]
        at = vicinity.random_point(origin, near, rng) if restart else origin
        for number in range(STEPS + 1):
            with torch.enable_grad():
                leaf = at.detach().clone().requires_grad_()
                value = (features(leaf * 1.0) * w).sum(1)
                won[left] |= value.detach() > t
                if number == STEPS or not value.requires_grad:
                    break
                (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            if gradient is None:
                break
            # Long steps first: half of the way in a quarter of the steps.
            size = (2.5 * near / STEPS * (2 if number < STEPS // 4 else 1)).view(wide)
            step = size * vicinity.steepest(gradient.nan_to_num(0.0, 0.0, 0.0))
            at = vicinity.project(at.detach() + step, origin, near)
    return won
