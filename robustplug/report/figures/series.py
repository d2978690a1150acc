"""Accuracy against eps, steps and restarts, from the rows of evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.measures import wilson_interval
from ...core.reporting import headlines
from ...core.types import AttackResult, Result

Axis = Literal["eps", "steps", "restarts"]
AXES: tuple[Axis, ...] = ("eps", "steps", "restarts")
# No figure is drawn for fewer values.
ENOUGH = 3


@dataclass(frozen=True)
class Series:
    """Hold accuracies of rows that differ in one number only.

    Attributes:
        label: the attack, its other options, and the source of the values.
        x: values of the number, in ascending order.
        accuracy: accuracy over all samples, in [0, 1].
        samples: number of samples.
        threat: name of the vicinity.
    """

    label: str
    x: tuple[float, ...]
    accuracy: tuple[float, ...]
    samples: int
    threat: str

    @property
    def ends(self) -> list[tuple[float, float]]:
        """Return the 95 % Wilson interval of each accuracy."""
        return [wilson_interval(round(share * self.samples), self.samples) for share in self.accuracy]


def find_series(results: Mapping[str, Result], axis: Axis) -> list[Series]:
    """Return the series of at least three values along an axis.

    Only rows that ran on all correctly classified samples count, because the result of a later row in a
    chain depends on the rows before it. Along eps, the clean accuracy is the value at 0.

    Args:
        results: evaluations by name of the suite, "" for the run's own evaluation.
        axis: the number that differs.
    """
    found = []
    for suite, result in results.items():
        if headlines(result):  # accuracy is not what counts
            continue
        groups: dict[str, dict[float, AttackResult]] = {}
        for row in _alone(result.attacks):
            value = row.threat.get("eps") if axis == "eps" else row.options.get(axis)
            if isinstance(value, int | float) and not isinstance(value, bool):
                groups.setdefault(_key(row, axis), {})[float(value)] = row
        found += [_series(suite, result, rows, axis) for rows in groups.values() if len(rows) >= ENOUGH]
    return found


def _alone(rows: Sequence[AttackResult]) -> Iterator[AttackResult]:
    """Yield the rows of attacks on the model itself that ran on all correctly classified samples."""
    chains = set()
    for row in rows:
        first = not row.chain or row.chain not in chains
        chains.add(row.chain)
        # Only the name distinguishes a transfer attack from an attack on the model itself.
        attack = row.options and row.bound == "upper"
        if first and attack and not row.skipped and not row.shift and " from " not in row.name:
            yield row


def _key(row: AttackResult, axis: Axis) -> str:
    options = {name: value for name, value in row.options.items() if name != axis}
    threat = {name: value for name, value in row.threat.items() if (name, axis) != ("eps", "eps")}
    return json.dumps([options, threat], sort_keys=True, default=str)


def _series(suite: str, result: Result, rows: Mapping[float, AttackResult], axis: Axis) -> Series:
    pairs = [(value, row.accuracy) for value, row in sorted(rows.items())]
    if axis == "eps" and pairs[0][0] > 0:
        pairs.insert(0, (0.0, result.attacks[0].accuracy))
    one = next(iter(rows.values()))
    said = [str(one.options.get("use", one.name))]
    said += [
        f"{key} {one.options[key]}" for key in ("steps", "restarts") if key in one.options and key != axis
    ]
    eps = one.threat.get("eps")
    if axis != "eps" and eps is not None:
        said.append(f"ε {eps:.4g}")
    label = ", ".join(said) + (f" ({suite})" if suite else "")
    x, accuracy = zip(*pairs, strict=True)
    return Series(label, x, accuracy, result.samples, str(one.threat.get("use", "")))
