"""Micro-batches: the parts of a batch that go through the model one after the other, for one update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ...core.method import whole_batch
from ...core.types import take
from ...recipe.errors import Problem, RecipeError
from .update import Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.method import Method
    from ...core.types import Batch


def micro_batches(rows: int, world: int, most: int | None) -> int:
    """Return into how many parts each process divides its rows of a batch: the same number on all.

    Args:
        rows: rows of the global batch.
        world: number of processes.
        most: largest number of rows of a part; None for one part. Where a process has one row less than
            another and there were none for its last part, parts may have a row more.
    """
    if most is None:
        return 1
    return max(1, min(math.ceil(math.ceil(rows / world) / most), rows // world))


def divided(batch: Batch, parts: int) -> Iterator[tuple[int, Batch]]:
    """Yield the parts of a batch, whose sizes differ by at most a row, each with the place of its first row.

    They are views of the batch's tensors.
    """
    if parts == 1:
        yield 0, batch
        return
    size, longer = divmod(len(batch), parts)
    start = 0
    for number in range(parts):
        end = start + size + (number < longer)
        rows = slice(start, end)
        x, y, index, info = (take(each, rows) for each in (batch.x, batch.y, batch.index, batch.info))
        yield start, replace(batch, x=x, y=y, index=index, info=info)
        start = end


def first_part(x: Any, most: int | None) -> Any:
    """Return the inputs of the first micro-batch of a process's rows x."""
    if most is None or len(x) <= most:
        return x
    return take(x, slice(0, math.ceil(len(x) / micro_batches(len(x), 1, most))))


def refuse_whole_batch(method: Method[Any]) -> None:
    """Refuse micro-batches for a method whose updates need all rows of a batch at once.

    Raises:
        RecipeError: it is such a method.
    """
    if why := whole_batch(method):
        raise RecipeError([Problem("train.micro_batch", f"cannot be used: {why}; leave it out")], "recipe")


def merged(outcomes: Sequence[tuple[int, Outcome]]) -> Outcome:
    """Return the outcome of an update from those of its micro-batches, each with its number of rows.

    Losses add up: each is its share of the batch's. What is logged is a mean over all rows, or over those
    that count.
    """
    if len(outcomes) == 1:
        return outcomes[0][1]
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor | int] = {}
    for rows, outcome in outcomes:
        for name, value in outcome.logged.items():
            weight = outcome.counted.get(name, rows)
            sums[name] = value * weight + sums.get(name, 0.0)
            weights[name] = weight + weights.get(name, 0)
    counted = {name for _, outcome in outcomes for name in outcome.counted}
    totals: Mapping[str, Tensor] = {n: w for n, w in weights.items() if n in counted}  # type: ignore[misc]
    logged = {name: total / _some(weights[name]) for name, total in sums.items()}
    return Outcome(torch.stack([outcome.total for _, outcome in outcomes]).sum(), logged, totals)


def _some(rows: Tensor | int) -> Tensor | int:
    """Return a number of rows to divide by, which may be 0."""
    return rows if isinstance(rows, int) else rows.clamp_min(1)
