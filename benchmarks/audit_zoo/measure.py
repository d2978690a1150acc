"""The true robust accuracy of a model of the zoo, from the best of several attacks that are made for it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import robustplug
from robustplug.api import isolated, margin, stream
from robustplug.errors import Refused, RunError

from .entries import Entry, Made
from .workshop import behaviour

Loss = Callable[[Tensor, Tensor], Tensor]
Model = Callable[[Tensor], Tensor]
# A model that draws random numbers is right where most of this many answers are.
DRAWS = 75
# Raised with each change of the attacks: older numbers in a cache no longer count.
EDITION = 1


@dataclass(frozen=True)
class Measured:
    """The accuracies of a model.

    Attributes:
        clean: on clean samples.
        naive: under PGD with 20 steps on cross entropy; None where it cannot be run.
        true: under all attacks together; an upper bound.
        best: the attack that breaks most, each on what those before it left.
        square: what Square breaks after all others.
    """

    clean: float
    naive: float | None
    true: float
    best: str
    square: float


def share(flags: Tensor) -> float:
    return float(flags.float().mean())


def callable_of(module: Any) -> Model:
    """Return a model of the zoo as a function from images to scores."""
    if not hasattr(module, "predict"):
        return module  # type: ignore[no-any-return]

    def scores(x: Tensor) -> Tensor:
        classes = torch.as_tensor(module.predict(x.flatten(1).numpy()))
        return functional.one_hot(classes.long(), 10).float()

    return scores


def right(model: Model, x: Tensor, y: Tensor, draws: int) -> Tensor:
    """Return which samples most of some answers get right, bool (N,)."""
    with torch.no_grad():
        votes = sum((model(x).argmax(1) == y).float() for _ in range(draws))
    return torch.as_tensor(votes / draws > 0.5)


def targeted(rank: int) -> Loss:
    """Return the loss that raises the wrong class of a rank, by its score, above the true one."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        true = logits.gather(1, y[:, None])[:, 0]
        wrong = logits.scatter(1, y[:, None], -math.inf)
        return wrong.topk(rank + 1, 1).values[:, rank] - true

    return loss


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y, reduction="none")


def gap(logits: Tensor, y: Tensor) -> Tensor:
    """Return by how much the largest wrong score exceeds that of the label."""
    return margin(logits, y)


LOSSES: Mapping[str, Loss] = {
    "ce": cross_entropy,
    "margin": gap,
    **{f"target {rank + 1}": targeted(rank) for rank in range(1, 4)},
}


def descend(
    model: Model, stand_in: nn.Module, made: Made, standing: Tensor, loss: Loss, draws: int, seed: int
) -> Tensor:
    """Return which samples are still standing after PGD on a stand-in, every step judged on the model.

    Some of the points are also tried on the grid of multiples of 1/16, nearer to the sample.
    """
    (x, y), table = made.data, dict(made.vicinity)
    vicinity = robustplug.build("vicinity", table.pop("use"), **table)
    standing, steps = standing.clone(), 40
    every = 8 if hasattr(made.module, "predict") else 1
    rng = stream(seed, "zoo")
    rows = standing.nonzero()[:, 0]
    origin, labels = x[rows], y[rows]
    radius = torch.full((len(rows),), float(made.vicinity["eps"]))
    at = vicinity.random_point(origin, radius, rng)
    for step in range(steps):
        if not len(rows):
            break
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            gradient = torch.autograd.grad(loss(stand_in(at), labels).sum(), at)[0]
        size = float(made.vicinity["eps"]) * (0.01 + 0.25 * (1 + math.cos(math.pi * step / steps)))
        ahead = vicinity.steepest(torch.nan_to_num(gradient))
        at = vicinity.project(at.detach() + size * ahead, origin, radius)
        if (step + 1) % every:
            continue
        snapped = origin + torch.trunc((at - origin) * 16) / 16
        keep = torch.ones(len(rows), dtype=torch.bool)
        for candidate in (at, snapped) if step % 5 == 4 else (at,):
            legal = vicinity.contains(candidate, origin, radius)
            wrong = ~right(model, candidate, labels, 1) & legal
            if draws > 1 and wrong.any():
                wrong[wrong.clone()] = ~right(model, candidate[wrong], labels[wrong], draws)
            keep &= ~wrong
        standing[rows[~keep]] = False
        rows, origin, labels, radius, at = rows[keep], origin[keep], labels[keep], radius[keep], at[keep]
    return standing


def black_box(model: Any, made: Made, standing: Tensor, attack: Mapping[str, Any], draws: int) -> Tensor:
    """Return which samples are still standing after an attack on the model itself."""
    (x, y), standing = made.data, standing.clone()
    rows = standing.nonzero()[:, 0]
    if not len(rows):
        return standing
    found = robustplug.attack(
        model, x[rows], y[rows], attack, threat=made.vicinity, device="cpu", classes=10, batch_size=256
    )
    standing[rows] = right(callable_of(model), found, y[rows], draws)
    return standing


def measured(entry: Entry, samples: int, cache: Path | None) -> Measured:
    """Return the accuracies of a model, from the cache where the same code has measured them before."""
    made = entry.make()
    outputs = behaviour(callable_of(made.module), made.data[0][:16])
    facts = [EDITION, entry.name, samples, made.vicinity, outputs]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:20]
    path = None if cache is None else cache / "measured" / f"{digest}.json"
    if path is not None and path.exists():
        return Measured(**json.loads(path.read_text(encoding="utf-8")))
    found = measure(entry, samples)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def measure(entry: Entry, samples: int, queries: int = 500) -> Measured:
    """Measure clean accuracy, accuracy under a usual PGD, and the true one.

    Args:
        entry: the model.
        samples: number of test samples.
        queries: queries of Square.
    """
    made = entry.make()
    made = made._replace(data=(made.data[0][:samples], made.data[1][:samples]))
    model, draws = callable_of(made.module), DRAWS if entry.random else 1
    with isolated(0):
        clean = right(model, *made.data, draws)
        try:
            naive = share(black_box(made.module, made, clean, {"use": "pgd", "steps": 20}, draws))
        except (Refused, RunError):
            naive = None
        standing = clean
        lost: dict[str, float] = {}
        for number, stand_in in enumerate(_differentiable(made, entry.stand_ins(made.module))):
            for label, loss in LOSSES.items():
                for restart in range(1 if label.startswith("target") else 2):
                    after = descend(model, stand_in, made, standing, loss, draws, restart)
                    name = f"{label}, stand-in {number}"
                    lost[name] = lost.get(name, 0.0) + share(standing & ~after)
                    standing = after
        after = black_box(made.module, made, standing, {"use": "square", "queries": queries}, draws)
        lost["square"] = share(standing & ~after)
    best = max(lost, key=lambda name: lost[name])
    return Measured(share(clean), naive, share(after), best, lost["square"])


def _differentiable(made: Made, stand_ins: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the model itself and its stand-ins, as far as they have gradients."""
    x = made.data[0][:2].clone().requires_grad_()
    models = stand_ins if hasattr(made.module, "predict") else [made.module, *stand_ins]
    with torch.enable_grad():
        return [model for model in models if model(x).requires_grad]
