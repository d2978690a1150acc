"""Run an attack on a batch, and judge what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.protocols import AimingPerturbation
from ..core.step import Meter, Step
from ..core.task import MeasuringTask, TellingTask
from ..core.types import Batch, View, take
from .setting import Attack, Setting, plain_objective


class Judged(NamedTuple):
    """Hold what an attack did to a batch.

    Attributes:
        right: which samples are right, bool (N,).
        legal: which results are in the vicinity, bool (N,).
        distances: (L∞, L2) of the examples that broke a sample.
        measures: what else the task measures, (N,) each; NaN where the result was not legal.
        told: (broken, index, text) of the first sample that is broken, or else of the first one.
    """

    right: Tensor
    legal: Tensor
    distances: list[tuple[float, float]]
    measures: Mapping[str, Tensor]
    told: tuple[bool, int, str] | None


def judge(
    evaluation: Setting, batch: Batch, attack: Attack, rng: torch.Generator, meter: Meter, seed: int
) -> Judged:
    """Run an attack on a batch and judge its results."""
    objective, task = plain_objective(evaluation.loss), evaluation.task
    step = Step(evaluation.model, objective, task, batch, rng, meter=meter, evaluating=True, seed=seed)
    if attack.shift is not None:
        batch = attack.shift.sample(step, batch)
        step.batch = batch
    vicinity = attack.vicinity or evaluation.vicinity
    view = View.of(batch, "clean" if attack.perturbation is None else "adv")
    legal = torch.ones(len(batch), dtype=torch.bool, device=batch.index.device)
    if attack.perturbation is not None:
        if isinstance(attack.perturbation, AimingPerturbation):
            view = view.replace(info={**view.info, **attack.perturbation.aim(step, view)})
        origin = view
        moved = attack.perturbation(step, view, vicinity)
        # What the attack says counts for nothing: the original labels, origins and radii do.
        view = origin.replace(x=moved.x)
        legal = vicinity.contains(view.x, view.origin, step.radii(view, vicinity))
    with torch.no_grad():
        output = step.output(view)
        right = step.score(view, output) | ~legal
        measures = dict(task.measure(view, output)) if isinstance(task, MeasuringTask) else {}
        if evaluation.losses:
            measures["loss"] = step.loss(view, output, view.y)
        measures = {name: values.double().masked_fill(~legal, torch.nan) for name, values in measures.items()}
        told = _told(task, view, output, right) if isinstance(task, TellingTask) else None
    return Judged(right, legal, _distances(view, ~right), measures, told)


def _told(task: TellingTask, view: View, output: Any, right: Tensor) -> tuple[bool, int, str] | None:
    """Tell of the broken sample of the lowest index, or else of the sample of the lowest one."""
    if not len(view):
        return None
    broken = not bool(right.all())
    rows = (~right).nonzero()[:, 0] if broken else torch.arange(len(view), device=right.device)
    first = rows[view.index[rows].argmin()][None]
    (text,) = task.tell(view.rows(first), take(output, first))
    return broken, int(view.index[first]), text


def _distances(view: View, rows: Tensor) -> list[tuple[float, float]]:
    if not isinstance(view.x, Tensor) or not view.x.is_floating_point():
        return []
    moved = (take(view.x, rows) - take(view.origin, rows)).flatten(1).float()
    if not moved.numel():
        return []
    return list(zip(moved.abs().amax(1).tolist(), moved.norm(dim=1).tolist(), strict=True))
