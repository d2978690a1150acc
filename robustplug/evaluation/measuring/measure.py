"""Run a measurement on a batch, and collect what the batches of its row hold."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.calling.meter import Meter
from ...core.guards.calls import compared
from ...core.guards.values import copied
from ...core.measures import Certified, Measure, Quantity, mean_of, share_of
from ...core.protocols import (
    CERTIFIED_RADIUS,
    Certificate,
    DoubtingMeasurement,
    Measurement,
    PortionedMeasurement,
)
from ...core.step import Step
from ...core.task import DescribedMeasures, PoolingTask, quantities_of
from ...core.types import AttackResult, Batch, View
from ...errors import Refused
from ...plugin.culprit import name_of
from ..judge import Judged
from ..setting import Attack, Setting, plain_objective

if TYPE_CHECKING:
    from ...core.task import Task
    from ...devices.processes import Processes

# The radii themselves, -1 where a sample is not certified at all; a mean counts those as 0.
_RADIUS = f"_{CERTIFIED_RADIUS}"


def measure(
    evaluation: Setting,
    batch: Batch,
    attack: Attack,
    rng: torch.Generator,
    meter: Meter,
    seed: int,
    number: int,
    first: bool = True,
) -> Judged:
    """Run a measurement on a batch; arguments and exceptions are those of `judge`.

    Returns:
        Of a certificate, `right` says which samples are certified at the radius of the threat model; of other
        measurements, it is True.
    """
    measurement = attack.measurement
    assert measurement is not None
    given, vicinity = copied(batch), attack.vicinity or evaluation.vicinity
    objective = plain_objective(evaluation.loss)
    step = Step(evaluation.model, objective, evaluation.task, given, rng, meter=meter, seed=seed)
    step.evaluating = True
    view, own = View.of(given, "clean"), View.of(batch, "clean")
    if isinstance(measurement, Certificate):
        refuse_other_norm(measurement, vicinity.norm)
    with (
        evaluation.guarding(measurement, batch, *compared(view, own), values=first),
        step.attack_mode(),
    ):
        found = measurement(step, view, vicinity)
    values = _checked(found, len(batch), name_of(measurement))
    right = torch.ones(len(batch), dtype=torch.bool, device=batch.index.device)
    if isinstance(measurement, Certificate):
        if CERTIFIED_RADIUS not in values:
            raise Refused(f'{name_of(measurement)} returned no "{CERTIFIED_RADIUS}"')
        radius = values[_RADIUS] = values[CERTIFIED_RADIUS]
        values[CERTIFIED_RADIUS] = radius.clamp_min(0)
        values |= {said: 100.0 * (radius >= at) for at, said in _levels(measurement).items()}
        right = radius >= step.radii(own, vicinity).to(radius)
    return Judged(right, torch.ones_like(right), [], values, None)


def refuse_other_norm(certificate: Certificate, norm: float | None) -> None:
    """Refuse to compare radii of one norm with those of another.

    Raises:
        Refused: the threat model has another norm, or is no ball.
    """
    if norm != certificate.norm:
        named = {float("inf"): "L∞", 2.0: "L2", 1.0: "L1"}
        own = named.get(certificate.norm, f"L{certificate.norm:g}")
        other = "no norm" if norm is None else named.get(norm, f"L{norm:g}")
        raise Refused(
            f"its certificate is about {own}, and the threat model has {other}: evaluate with a threat model "
            f"of {own}, or choose a certificate for {other}, for some by their option norm"
        )


def _checked(found: Any, rows: int, who: str) -> dict[str, Tensor]:
    """Return measures as float64.

    Raises:
        Refused: they are no numbers of each sample.
    """
    if not isinstance(found, Mapping) or not found:
        raise Refused(f"{who} must return named numbers of each sample, not {type(found).__name__}")
    for name, values in found.items():
        if not isinstance(values, Tensor) or values.shape != (rows,):
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise Refused(f'{who} returned "{name}" as {shape}, not as a number of each of {rows} samples')
    return {str(name): values.detach().double() for name, values in found.items()}


def _levels(certificate: Certificate) -> dict[float, str]:
    return {float(at): f"certified at {at:g}" for at in certificate.radii}


def portion(measurement: Measurement | None, rows: int) -> int:
    """Return the number of samples of one call, at most that of a batch."""
    return min(rows, measurement.portion) if isinstance(measurement, PortionedMeasurement) else rows


def doubts(
    attacks: Sequence[Attack], rows: Sequence[AttackResult], trained: Mapping[str, Any] | None
) -> list[str]:
    """Return what the measurements of an evaluation say against their own numbers.

    Args:
        attacks: the rows but the clean one, as they were to be run.
        rows: their results, the clean one first.
        trained: table of the method that trained the model; None if it is not known.
    """
    found: list[str] = []
    for attack, row in zip(attacks, rows[1:], strict=True):
        measurement = attack.measurement
        if isinstance(measurement, DoubtingMeasurement) and not row.skipped:
            found += [f"{row.name}: {doubt}" for doubt in measurement.doubts(trained, row.measures)]
    return found


def quantities(task: Task, measurement: Measurement | None) -> list[Quantity]:
    """Return what is said of the measures of a row: by the task, or by what it measures."""
    said = list(quantities_of(task)) if measurement is None else []
    if isinstance(measurement, DescribedMeasures):
        said += measurement.quantities
    if isinstance(measurement, Certificate):
        said += [Quantity(name, "higher", share=True) for name in _levels(measurement).values()]
    return said


def means(
    evaluation: Setting, own: Mapping[str, array[float]], measurement: Measurement | None
) -> dict[str, Measure]:
    """Return the means of all measures of a row over its samples, and what the task makes of them.

    Args:
        evaluation: the evaluation.
        own: the measures of the samples of this process, by name.
        measurement: what the row measured; None for an attack.
    """
    processes, task = evaluation.processes, evaluation.task
    found = {}
    for name in dict.fromkeys(processes.gather_lines([*own])):
        found[name] = processes.gather_numbers(own.get(name, array("d")))
    shares = {quantity.name for quantity in quantities(task, measurement) if quantity.share}
    reported = {
        name: share_of(values) if name in shares else mean_of(values)
        for name, values in found.items()
        if not name.startswith("_")
    }
    pools = found and measurement is None and isinstance(task, PoolingTask)
    return {**reported, **task.pool(found)} if pools and isinstance(task, PoolingTask) else reported


def certified(
    measurement: Measurement | None,
    measures: Mapping[str, array[float]],
    order: array[int],
    size: int,
    processes: Processes,
) -> dict[str, Any]:
    """Return the fields of a row that say what it bounds; none for an attack.

    Args:
        measurement: what the row measured; None for an attack.
        measures: the measures of the samples of this process, by name.
        order: index of each of these samples.
        size: number of all samples.
        processes: the processes that share the evaluation.
    """
    if measurement is None:
        return {}
    if not isinstance(measurement, Certificate):
        return {"bound": "none"}
    radii = torch.full((size,), -1.0, dtype=torch.float64)
    own = measures.get(_RADIUS, array("d"))
    radii[processes.gather_numbers(order)] = processes.gather_numbers(own)
    said = Certified(
        f"{measurement.norm:g}", tuple(radii.tolist()), measurement.confidence, measurement.about
    )
    return {"bound": "lower", "certified": said}
