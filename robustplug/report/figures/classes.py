"""Confusion matrices of a run's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...core.types import AttackResult
from ..material import Material
from ..tables.classes import class_names, class_samples, shown_rows
from .charts import matrix_figure
from .drawn import Drawn, title_of

# A matrix of more classes shows those with the most errors.
_MOST = 20


def draw_classes(material: Material, folder: Path) -> Drawn:
    """Draw the confusion matrix of the clean samples and of the last row of each chain."""
    result = material.result
    if result is None:
        return
    for number, row in enumerate(row for row in shown_rows(result) if row.confusion):
        path = folder / f"confusion-{number or 'clean'}.png"
        title = f"Confusion matrix, {row.name}, {title_of(material)}"
        chosen = with_most_errors(row, class_samples(result), _MOST)
        names = [class_names(result)[each] for each in chosen]
        matrix_figure(path, title, names, names, shares(row, chosen), "{:.0f}")
        notes = ["Rows: the true class; columns: the prediction, in % of the class."]
        if number:
            notes.append("A broken sample counts with the class that its adversarial example is taken for.")
        if len(chosen) < len(row.confusion):
            notes.append(f"Only the {len(chosen)} classes with the most errors, of {len(row.confusion)}.")
        yield path, " ".join(notes)


def with_most_errors(row: AttackResult, samples: Sequence[int], most: int) -> list[int]:
    """Return the numbers of at most so many classes, those with the most errors, in ascending order."""
    order = sorted(range(len(samples)), key=lambda each: row.by_class[each] - samples[each])
    return sorted(order[:most])


def shares(row: AttackResult, chosen: Sequence[int]) -> list[list[float]]:
    """Return for some classes the percentages of their samples that are taken for each of them."""
    table = []
    for label in chosen:
        count = sum(row.confusion[label])
        table.append([100 * row.confusion[label][each] / count if count else math.nan for each in chosen])
    return table
