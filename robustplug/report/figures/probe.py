"""Computations of a report: the loss around samples, and adversarial examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.random import stream
from ...core.step import Step
from ...core.types import View

if TYPE_CHECKING:
    from ...core.protocols import Vicinity
    from ...evaluation.opened import OpenedEvaluation

# Number of samples whose loss is averaged, and of displacements along each direction.
LOSSES, GRID = 16, 21
# Number of adversarial examples to show.
SHOWN = 6


def sweep_suite(axes: Sequence[str], name: str) -> dict[str, Any]:
    """Return the suite by which a report measures accuracy against some of eps, steps and restarts."""
    rows: dict[str, dict[str, Any]] = {
        "eps": {
            "attack": {"use": "pgd", "steps": 20},
            "sweep": {"scale": [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]},
        },
        "steps": {"attack": {"use": "pgd"}, "sweep": {"attack": {"steps": [1, 2, 4, 8, 16, 32, 64]}}},
        "restarts": {
            "attack": {"use": "pgd", "steps": 10},
            "sweep": {"attack": {"restarts": [1, 2, 4, 8]}},
        },
    }
    return {"schema": 1, "name": name, "row": [rows[axis] for axis in axes]}


# Upper bound of forward and backward passes per sample, for each part.
PASSES = {"eps": 7 * 40, "steps": 127 * 2, "restarts": 15 * 20, "landscape": GRID * GRID, "examples": 100}


@dataclass(frozen=True)
class Landscape:
    """Hold the mean loss of samples over displacements in two directions.

    Attributes:
        along: sizes of both displacements, in the norm of the threat model.
        losses: a row for each size along a Rademacher vector, a column for each along the gradient's sign.
        samples: number of averaged samples.
        radius: ε.
    """

    along: list[float]
    losses: list[list[float]]
    samples: int
    radius: float


def landscape(step: Step, view: View, vicinity: Vicinity, seed: int, bounded: bool) -> Landscape:
    """Measure the loss along the sign of the input gradient and a Rademacher vector: SPROUT §4.3, Fig. 4.

    Each sample moves by a·sign(∇ℓ) + b·r with a, b in [−2ε, 2ε] and r of ±1. Both directions are scaled to
    unit size in the threat model's norm.

    Args:
        step: step that evaluates the model.
        view: view of the samples.
        vicinity: the threat model.
        seed: seed of r.
        bounded: whether inputs are clipped to [0, 1].

    Raises:
        Refused: the model provides no gradients.
    """
    view = view.rows(torch.arange(min(LOSSES, len(view)), device=view.index.device))
    radius = float(vicinity.eps)
    sizes = torch.linspace(-2, 2, GRID) * radius
    rng = stream(seed, "report", "rademacher")
    with step.attack_mode():
        x = view.x.detach().clone().requires_grad_()
        steepest = step.gradient(step.objective(view.replace(x=x)).sum(), x).sign()
        bits = torch.randint(0, 2, x.shape, generator=rng).to(x)
        unit = x[0].numel() ** 0.5 if vicinity.norm == 2 else 1.0
        first, second = steepest / unit, (2 * bits - 1) / unit
        rows = []
        with torch.no_grad():
            for b in sizes.tolist():
                row = []
                for a in sizes.tolist():
                    moved = x.detach() + a * first + b * second
                    moved = moved.clamp(0, 1) if bounded else moved
                    row.append(float(step.objective(view.replace(x=moved)).mean()))
                rows.append(row)
    return Landscape(sizes.tolist(), rows, len(view), radius)


@dataclass(frozen=True)
class Examples:
    """Hold samples before and after an attack.

    Attributes:
        original, adversarial, perturbation: (caption, image (C, H, W) in [0, 1]); a perturbation is shown
            magnified around grey.
        magnified: factor of the magnification.
        broken: number of tried samples that the attack breaks.
        tried: number of samples that were classified correctly before the attack.
    """

    original: list[tuple[str, Any]]
    adversarial: list[tuple[str, Any]]
    perturbation: list[tuple[str, Any]]
    magnified: float
    broken: int
    tried: int


def examples(opened: OpenedEvaluation, step: Step, view: View, vicinity: Vicinity) -> Examples:
    """Attack samples with the first attack of an opened evaluation, and return some, broken ones first.

    A result outside the threat model does not count as broken.

    Args:
        opened: opened evaluation, with the names of the classes.
        step, view, vicinity: as yielded by its `steps`.

    Raises:
        Refused: the attack cannot be run on the model.
    """
    attack = opened.attacks[0].perturbation
    assert attack is not None
    moved = attack(step, view, vicinity).x
    legal = vicinity.contains(moved, view.origin, step.radii(view, vicinity))
    with torch.no_grad():
        output = step.forward(moved)
        broken = ~step.score(view.replace(x=moved), output) & legal
    # Broken ones first, each group in its order.
    chosen = torch.argsort((~broken).int(), stable=True)[:SHOWN]
    names = opened.evaluation.task.info.class_names
    change = (moved - view.origin)[chosen]
    largest = float(change.abs().max()) or 1.0
    # The largest change fills half of the range; the factor is rounded to be easier to read.
    factor = float(f"{0.5 / largest:.1g}") if largest < 0.5 else 1.0
    labels = view.y if view.y.ndim == 1 else view.y.argmax(1)
    guesses = output.argmax(1)

    def captioned(images: Tensor, captions: list[str]) -> list[tuple[str, Any]]:
        return list(zip(captions, images.clamp(0, 1).cpu().numpy(), strict=True))

    def called(classes: Tensor) -> list[str]:
        return [names[at] if at < len(names) else str(at) for at in classes[chosen].tolist()]

    outcome = ["→ " if flag else "still " for flag in broken[chosen].tolist()]
    sizes = change.flatten(1).norm(p=2 if vicinity.norm == 2 else math.inf, dim=1).tolist()
    return Examples(
        captioned(view.origin[chosen], called(labels)),
        captioned(moved[chosen], [a + b for a, b in zip(outcome, called(guesses), strict=True)]),
        captioned(0.5 + factor * change, [f"{size:.3g}" for size in sizes]),
        factor,
        int(broken.sum()),
        len(view),
    )
