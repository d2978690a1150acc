"""Inspect a model's outputs and input gradients on some samples, before any attack runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.functional import cross_entropy, margin
from ...core.protocols import Vicinity
from ...core.random import derive, isolated, stream
from ...core.types import Batch
from .stand_ins import Bridge, find_bridge

# Fractions of the radius at which a gradient is compared with finite differences.
MOVES = (1 / 64, 1 / 16, 1 / 4)
# A slope counts as confirmed within this factor: curvature and clipping change it, a wrong gradient more.
FACTOR = 5.0
# Parts of a path along which gradients are added up, and the share of the way up and down that may be missing
# from their sum: kinks and curvature leave less, jumps more.
PARTS, MISSING = 16, 0.25
# Confidence beyond that of a guess, in units of what the accuracy is beyond it, below which logits are
# squeezed. Networks that adversarial training has hardly taught yet have 0.09, a temperature of 1000 gives
# 0.003.
SQUEEZED = 0.07
# Difference between a sample's outputs alone and in a batch, in units of the largest, that is no rounding.
DEPENDS = 1e-2
# Numbers of draws over which the gradient of a random model is averaged, and the agreement that ends it.
DRAWS, SETTLED = (4, 8, 16, 32), 0.9


@dataclass(frozen=True)
class Inspection:
    """Hold what some samples show about a model.

    Attributes:
        samples: number of samples.
        probabilities: whether the outputs are probabilities instead of logits.
        varies: largest difference between the outputs of two calls, in units of the largest output.
        depends: the same between a sample alone and within its batch.
        predicted: number of different classes that the model predicts.
        flips: number of samples whose predicted class differs between calls.
        draws: number of draws over which a random model is averaged; 1 for a deterministic one.
        absent: why there is no gradient at all; "" if there is one.
        parameters: number of the model's parameters: without any, no gradient is to be expected.
        zero: number of samples whose input gradient of the cross entropy is exactly 0 everywhere.
        zero_margin: the same for the margin of the outputs.
        broken: number of samples whose gradient has values that are no finite numbers.
        unsteady: whether two gradients at the same inputs differ although the outputs do not.
        compared: number of samples whose gradient of the margin was compared with finite differences.
        wrong: number of these that no finite difference confirms.
        uneven: number of samples on whose path the gradients do not add up to what the margin does; -1 if not
            measured.
        bridge: where gradients can be led past parts without a gradient; None for nowhere or no need.
        scale: factor that brings the logits to a usual size.
        squeezed: whether the softmax hardly tells the classes apart, although the model does.
    """

    samples: int
    probabilities: bool = False
    varies: float = 0.0
    depends: float = 0.0
    predicted: int = 0
    flips: int = 0
    draws: int = 1
    absent: str = ""
    parameters: int = 0
    zero: int = 0
    zero_margin: int = 0
    broken: int = 0
    unsteady: bool = False
    compared: int = 0
    wrong: int = 0
    uneven: int = -1
    bridge: Bridge | None = None
    scale: float = 1.0
    squeezed: bool = False

    @property
    def random(self) -> bool:
        """Return whether outputs differ between calls."""
        return self.varies > 1e-4


def inspect(
    model: nn.Module,
    batch: Batch,
    vicinity: Vicinity,
    radius: Tensor,
    seed: int,
    probabilities: bool = False,
) -> Inspection:
    """Inspect a classifier, in eval mode, on a batch.

    Args:
        model: the model.
        batch: clean samples: floating-point inputs (N, …) and classes.
        vicinity: the threat model.
        radius: radius of each sample, (N,).
        seed: seed of everything that the model draws.
        probabilities: whether the model's own outputs are probabilities.
    """
    x = batch.x.detach()
    labels = batch.y if batch.y.dim() == 1 else batch.y.argmax(1)
    with torch.no_grad(), isolated(derive(seed, "inspection"), x.device):
        one, two = model(x).float(), model(x).float()
        alone = torch.cat([model(row[None]) for row in x[:16]]).float()
    size = max(1e-12, float(one.abs().max()))
    found: dict[str, Any] = {
        "samples": len(x),
        "probabilities": probabilities,
        "varies": float((one - two).abs().max()) / size,
        "depends": float((one[:16] - alone).abs().max()) / size,
        "predicted": len(one.argmax(1).unique()),
        "flips": int((one.argmax(1) != two.argmax(1)).sum()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "scale": _usual_scale(one),
        "squeezed": squeezed(one, labels),
    }
    random = found["varies"] > 1e-4
    with isolated(derive(seed, "inspection", "gradients"), x.device):
        if random:
            found["draws"] = draws_needed(model, x, labels)
        found |= _gradients(model, x, labels, vicinity, radius, random)
        if not random and not found.get("absent") and found["depends"] <= DEPENDS:
            end = _elsewhere(x, vicinity, radius, derive(seed, "inspection", "path"))
            found["uneven"] = int(unexplained(model, x, end, labels).sum())
        bad = found.get("absent") or found["zero_margin"] + found["broken"] > len(x) / 2
        if bad and found["parameters"]:
            found["bridge"] = find_bridge(model, x)
    return Inspection(**found)


def input_gradient(
    model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor | None, Tensor]:
    """Return the gradient of a per-sample loss of the outputs, or None if there is none, and the losses."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        # A model that writes into its input needs one that is no leaf.
        losses = loss(model(leaf * 1.0).float())
        if not losses.requires_grad:
            return None, losses
        (gradient,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)
    return gradient, losses.detach()


def _gradients(
    model: nn.Module, x: Tensor, labels: Tensor, vicinity: Vicinity, radius: Tensor, random: bool
) -> dict[str, Any]:
    entropy, _ = input_gradient(model, x, lambda output: cross_entropy(output, labels))
    gradient, _ = input_gradient(model, x, lambda output: margin(output, labels))
    again, _ = input_gradient(model, x, lambda output: margin(output, labels))
    if gradient is None or entropy is None or again is None:
        return {"absent": "its outputs have no gradient with respect to the inputs", "zero_margin": len(x)}
    finite = gradient.flatten(1).isfinite().all(1) & entropy.flatten(1).isfinite().all(1)
    zero_margin = gradient.flatten(1).abs().amax(1) == 0
    usable = finite & ~zero_margin
    found = {
        "broken": int((~finite).sum()),
        "zero": int((entropy.flatten(1).abs().amax(1) == 0).sum()),
        "zero_margin": int(zero_margin.sum()),
        "unsteady": not random and _differs(gradient, again),
        "compared": 0,
    }
    if not random:
        wrong = unconfirmed(model, x, labels, gradient.nan_to_num(0.0, 0.0, 0.0), vicinity, radius)
        found |= {"compared": int(usable.sum()), "wrong": int((wrong & usable).sum())}
    return found


def _differs(one: Tensor, other: Tensor) -> bool:
    both = one.isfinite() & other.isfinite()
    scale = float(one[both].abs().max()) if bool(both.any()) else 0.0
    return scale > 0 and float((one - other)[both].abs().max()) > 0.1 * scale


def unconfirmed(
    model: nn.Module, x: Tensor, labels: Tensor, gradient: Tensor, vicinity: Vicinity, radius: Tensor
) -> Tensor:
    """Return which samples have a gradient of the margin that no finite difference confirms: bool (N,).

    The slope along the steepest direction of the gradient is compared with central differences at several
    lengths; one that agrees is enough.
    """
    direction = vicinity.steepest(gradient)
    slope = (gradient * direction).flatten(1).double().sum(1)
    confirmed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with torch.no_grad():
        for move in MOVES:
            length = (move * radius).view(-1, *(1,) * (x.dim() - 1))
            ahead, behind = (
                margin(model(x + side * length * direction), labels).double() for side in (1.0, -1.0)
            )
            ratio = (ahead - behind) / (2 * move * radius.double()) / slope
            confirmed |= (ratio > 1 / FACTOR) & (ratio < FACTOR)
    return ~confirmed


def _elsewhere(x: Tensor, vicinity: Vicinity, radius: Tensor, seed: int) -> Tensor:
    """Return a point of the surface of each sample's ball, in a random direction."""
    noise = torch.randn(x.shape, generator=stream(seed, "direction"), dtype=torch.float32).to(x)
    length = radius.to(x).view(-1, *(1,) * (x.dim() - 1))
    return vicinity.project(x + length * vicinity.steepest(noise), x, radius)


def unexplained(model: nn.Module, start: Tensor, end: Tensor, labels: Tensor) -> Tensor:
    """Return on which straight paths the gradients do not add up to what the margin does: bool (N,).

    Along a path the slopes of a function add up to its change, and their sizes to its way up and down. They
    do not where the function jumps, as that of k-winners-take-all does, or is rougher than the gradients of
    an attack can tell.

    Args:
        model: the model.
        start, end: the ends of the paths, (N, …).
        labels: classes, (N,).
    """
    way = end - start
    slopes = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    steep, moved = slopes.clone(), slopes.clone()
    with torch.no_grad():
        first = last = margin(model(start).float(), labels).double()
    for part in range(PARTS):
        middle = start + way * ((part + 0.5) / PARTS)
        gradient, _ = input_gradient(model, middle, lambda output: margin(output, labels))
        if gradient is not None:
            slope = (gradient * way).flatten(1).double().sum(1) / PARTS
            slopes, steep = slopes + slope, steep + slope.abs()
        with torch.no_grad():
            new = margin(model(start + way * ((part + 1) / PARTS)).float(), labels).double()
        moved, last = moved + (new - last).abs(), new
    missing = (last - first - slopes).abs() > MISSING * torch.maximum(moved, steep)
    return missing | (moved < steep / 2)


def draws_needed(model: nn.Module, x: Tensor, labels: Tensor) -> int:
    """Return the number of draws after which the mean gradient of a random model keeps its direction.

    Two independent means are compared; the number of draws doubles until their mean cosine reaches `SETTLED`,
    up to the largest of `DRAWS`.
    """
    x, labels = x[:32], labels[:32]
    for draws in DRAWS:
        means: list[Tensor] = []
        for _ in range(2):
            total = torch.zeros_like(x)
            for _ in range(draws):
                gradient, _ = input_gradient(model, x, lambda output: margin(output, labels))
                total += 0.0 if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
            means.append(total.flatten(1))
        if float(torch.cosine_similarity(means[0], means[1]).mean()) >= SETTLED:
            return draws
    return DRAWS[-1]


def squeezed(outputs: Tensor, labels: Tensor) -> bool:
    """Return whether the softmax hardly tells the classes apart, although the model does.

    The gradient of the cross entropy then points away from all wrong classes alike. So it is if, in the
    median of the samples that the model gets right, the true class has hardly more than the probability of a
    guess, which the accuracy exceeds by far.

    Args:
        outputs: logits, (N, K).
        labels: classes, (N,).
    """
    right, guess = outputs.argmax(1) == labels, 1 / outputs.shape[1]
    accuracy = float(right.float().mean())
    if accuracy <= 2 * guess:
        return False
    own = outputs[right].softmax(1).gather(1, labels[right, None])
    return float(own.median()) - guess < SQUEEZED * (accuracy - guess)


def _usual_scale(outputs: Tensor) -> float:
    """Return the factor that brings the median gap between the two largest outputs to 2."""
    if outputs.shape[1] < 2:
        return 1.0
    top = outputs.topk(2, 1).values
    gap = float((top[:, 0] - top[:, 1]).median())
    return 2.0 / gap if gap > 0 else 1.0
