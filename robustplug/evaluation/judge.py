"""Run an attack on a batch, and judge its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.calling.meter import Meter
from ..core.guards.calls import compared, unchanged
from ..core.guards.values import copied
from ..core.protocols import Vicinity
from ..core.random import isolated, stream
from ..core.step import Step
from ..core.task import MeasuringTask, RecordingTask, Task, TellingTask
from ..core.types import Batch, View, take
from ..errors import Refused
from ..plugin.culprit import name_of
from ..text.records import TextRecord
from .classes import confidences, predictions
from .examples import Examples, levels, sides
from .setting import Attack, Setting, plain_objective

# Rows of one model call, when examples are checked as pictures.
_ROWS = 256


class Judged(NamedTuple):
    """Hold the judged results of an attack on a batch.

    Attributes:
        right: which samples are still correct, bool (N,).
        legal: which results are in the vicinity, bool (N,).
        distances: (L∞, L2) of the successful adversarial examples.
        measures: the task's other measures, (N,) each; NaN for results that are not legal.
        told: (broken, index, text) of the first broken sample, or else of the first sample.
        predicted: predicted class of each sample, int64 (N,), and its label for a result that is not legal;
            None if the task has no classes.
        confidence: probability of each prediction in the clean row, (N,); None in other rows.
        texts: of a task of texts, what the attack did to each sample; empty for others.
    """

    right: Tensor
    legal: Tensor
    distances: list[tuple[float, float]]
    measures: Mapping[str, Tensor]
    told: tuple[bool, int, str] | None
    predicted: Tensor | None = None
    confidence: Tensor | None = None
    texts: Sequence[TextRecord] = ()


def judge(
    evaluation: Setting,
    batch: Batch,
    attack: Attack,
    rng: torch.Generator,
    meter: Meter,
    seed: int,
    number: int,
    first: bool = True,
) -> Judged:
    """Run an attack on a batch and judge its results.

    Args:
        evaluation: the model, its task and its threat model.
        batch: clean samples.
        attack: the row.
        rng: generator of this batch.
        meter: counts the passes.
        seed: seed of generators of single samples.
        number: number of the row; 0 for the clean one.
        first: whether this is the first batch of the row, after which all weights are compared.

    Raises:
        Refused: the attack cannot be run, or a component changed what it was handed.
    """
    objective, task = plain_objective(evaluation.loss), evaluation.task

    def step_on(batch: Batch, attacking: bool = False) -> Step:
        # The step of an attack is not asked afterwards: its outputs may be anything.
        model, stops = evaluation.model, True
        if attacking and attack.stand_in is not None:
            model, stops = attack.stand_in(model), not attack.transfers
        step = Step(model, objective, task, batch, rng, meter=meter, evaluating=stops, seed=seed)
        step.iterations = evaluation.iterations if attacking else None
        return step

    if attack.shift is not None:
        given = copied(batch)
        with evaluation.guarding(attack.shift, batch, *compared(given, batch), values=first):
            batch = copied(attack.shift.sample(step_on(given), given))
    vicinity = attack.vicinity or evaluation.vicinity
    view = View.of(batch, "clean" if attack.perturbation is None else "adv")
    legal = torch.ones(len(batch), dtype=torch.bool, device=batch.index.device)
    reported: Mapping[str, Tensor] = {}
    if attack.perturbation is not None:
        radius = step_on(batch).radii(view, vicinity)
        refuse_illegal(task, view, vicinity, radius)
        # Only x is taken from the attack; labels, origins and radii are the original ones.
        attacking = step_on(batch, attacking=True)
        view = evaluation.attacked(attacking, view, attack.perturbation, vicinity, first)
        reported = copied(attacking.reported)
        view = view.replace(info={**view.info, **reported})
        with unchanged(None, lambda: name_of(vicinity)):
            legal = vicinity.contains(*copied((view.x, view.origin, radius)))
    own, view = view, copied(view)
    step = step_on(copied(batch))
    with torch.no_grad(), evaluation.guarding(task, batch, *compared(view, own)):
        output = step.output(view)
        right = step.score(view, output) | ~legal
        measures = dict(task.measure(view, output)) if isinstance(task, MeasuringTask) else {}
        measures |= reported
        if evaluation.losses:
            measures["loss"] = step.loss(view, output, view.y)
        measures = {name: values.double().masked_fill(~legal, torch.nan) for name, values in measures.items()}
        if evaluation.keeper is not None:
            evaluation.keeper.add(number, view, output, right)
        told = _told(task, view, output, right) if isinstance(task, TellingTask) else None
        predicted = predictions(output, task.info.classes)
        confidence = confidences(output) if predicted is not None and number == 0 else None
        if predicted is not None:
            labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
            predicted = torch.where(legal, predicted, labels)
        texts = task.records(view, output) if number and isinstance(task, RecordingTask) else ()
        # What left the threat model has not succeeded.
        texts = [
            record if fine else record._replace(result_type="Failed")
            for record, fine in zip(texts, legal.tolist() if texts else (), strict=True)
        ]
    return Judged(right, legal, _distances(own, ~right), measures, told, predicted, confidence, texts)


def refuse_illegal(task: Task, origin: View, vicinity: Vicinity, radius: Tensor) -> None:
    """Refuse inputs outside their valid range: every result would be illegal, and count as robust.

    Raises:
        Refused: some inputs are not legal themselves.
    """
    if vicinity.norm is None or not isinstance(origin.x, Tensor):
        return
    legal = vicinity.contains(origin.x, origin.x, radius)
    if not bool(legal.all()):
        wrong = int((~legal).sum())
        raise Refused(
            f"{wrong} of {len(legal)} inputs lie outside the valid range {task.info.bounds}: "
            "no adversarial example of them could count; state the range of the inputs (bounds)"
        )


def _told(task: TellingTask, view: View, output: Any, right: Tensor) -> tuple[bool, int, str] | None:
    """Describe the broken sample with the lowest index, or else the sample with the lowest index."""
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


def survivors(examples: Examples, setting: Setting, attacks: Sequence[Attack], bounds: Any) -> Tensor:
    """Return which examples are still wrong, and inside their radius, after rounding to 8 bits: bool (M,)."""
    device = setting.processes.device
    low, high = sides(bounds, examples.x)
    rounded = low + levels(examples.x, examples.origin, bounds).float() / 255 * (high - low)
    found = []
    vicinities: Mapping[int, Any] = {
        number: attack.vicinity or setting.vicinity for number, attack in enumerate(attacks, 1)
    }
    for number, vicinity in vicinities.items():
        mine = (examples.row == number).nonzero()[:, 0]
        for rows in torch.split(mine, _ROWS):
            x, origin = rounded[rows].to(device), examples.origin[rows].to(device)
            batch = Batch(x, examples.label[rows].to(device), examples.index[rows].to(device))
            rng = stream(setting.seed, "rounded", number, device=device)
            step = Step(setting.model, plain_objective(setting.loss), setting.task, batch, rng)
            view = View.of(batch, "adv", origin=origin)
            with torch.no_grad(), isolated(setting.seed, device):
                right = step.score(view, step.output(view))
                legal = vicinity.contains(x, origin, step.radii(view, vicinity))
            found.append((rows, (~right & legal).cpu()))
    result = torch.zeros(len(examples), dtype=torch.bool)
    for rows, survive in found:
        result[rows] = survive
    return result
