"""Rows of tables that have one class: any classes, or ordered ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from robustplug.api import ArrayTask, Quantity, Split, View, is_number

from .encoding import Table, TableInfo, read_table
from .options import OrdinalOptions, SourceOptions
from .sheets import Sheet, as_text, missing


def class_names(table: Table, order: Sequence[str] = ()) -> list[str]:
    """Return the classes of a table's target, in the given order, or else sorted.

    Raises:
        ValueError: a row has none, training rows have a single one, or rows have one that is not known.
    """
    (name,) = table.names
    found: dict[Split, list[str]] = {}
    for split, targets in table.targets.items():
        values = targets[name]
        empty = next((row for row, value in enumerate(values) if missing(value)), None)
        if empty is not None:
            raise ValueError(f"target: {table.sheets[split].at(empty)}: the column {name!r} is empty")
        found[split] = [as_text(value) for value in values]
    distinct = set(found["train"])
    if len(distinct) < 2:
        raise ValueError(
            f"target: the training rows are all {min(distinct)!r}: a classification needs two classes"
        )
    if len(distinct) > 1000:
        raise ValueError(
            f"target: the column {name!r} has {len(distinct)} values, too many for classes: use the task "
            "regression"
        )
    numeric = all(map(is_number, distinct))
    names = list(order) or sorted(distinct, key=(lambda each: (float(each), each)) if numeric else None)
    for split, values in found.items():
        row = next((row for row, value in enumerate(values) if value not in names), None)
        if row is not None:
            key = "order" if order else "target"
            raise ValueError(
                f"{key}: {table.sheets[split].at(row)}: the column {name!r} holds {values[row]!r}, which "
                "is none of "
                f"the classes {', '.join(names[:12])}"
            )
    return names


def class_numbers(table: Table, names: Sequence[str]) -> dict[Split, Tensor]:
    """Return the classes of the rows as numbers, int64 (N,), by split."""
    known = {name: number for number, name in enumerate(names)}
    return {
        split: torch.tensor([known[as_text(value)] for value in targets[table.names[0]]])
        for split, targets in table.targets.items()
    }


def table(options: SourceOptions, sheet: Sheet | None = None) -> ArrayTask:
    """Build the classification of rows; see SourceOptions.

    Args:
        options: the options.
        sheet: rows from Python in the place of `options.data`.

    Raises:
        DataMissing, BrokenData, ValueError: as `read_table` and `class_names`.
    """
    found = read_table(options, sheet=sheet)
    names = class_names(found)
    data = found.split(class_numbers(found, names), options.split_seed, classes=True)
    info = partial(TableInfo, columns=found.columns, target=found.names[0])
    return ArrayTask(data, class_names=names, bounds=found.bounds, info=info)


class OrdinalTask(ArrayTask):
    """Classify rows into ordered classes; a prediction is right if it is off by few enough steps.

    Args:
        data, class_names, more: as for `ArrayTask`; classes are in ascending order.
        within: number of steps by which a prediction may be off.
    """

    like = "ordinal"

    def __init__(
        self, data: Mapping[Split, Any], class_names: Sequence[str], within: int = 0, **more: Any
    ) -> None:
        super().__init__(data, class_names=class_names, **more)
        if within >= len(class_names) - 1:
            raise ValueError(
                f"within: {within} steps reach from the lowest of {len(class_names)} classes to the "
                "highest, so every "
                "prediction would be right"
            )
        self.within = within
        self.score_name = f"within-{within}"

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the measures."""
        return (Quantity("steps off", "lower"), Quantity("exact", "higher", share=True))

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether the prediction is off by at most `within` steps: bool (N,)."""
        return self.steps(view, output) <= self.within

    def measure(self, view: View, output: Tensor) -> Mapping[str, Tensor]:
        """Return by how many steps each prediction is off, and whether it is exact (0 or 100)."""
        off = self.steps(view, output)
        return {"steps off": off.float(), "exact": 100.0 * (off == 0)}

    @staticmethod
    def steps(view: View, output: Tensor) -> Tensor:
        """Return by how many steps each prediction is off, int64 (N,).

        An output that is not finite predicts nothing, and is off by as many steps as there are.
        """
        labels = view.y.argmax(1) if view.y.ndim == 2 else view.y
        largest, places = output.max(1)
        return torch.where(largest.isfinite(), (places - labels).abs(), output.shape[1] - 1)


def ordinal(options: OrdinalOptions, sheet: Sheet | None = None) -> OrdinalTask:
    """Build the task of ordered classes; see OrdinalOptions.

    Args:
        options: the options.
        sheet: rows from Python in the place of `options.data`.

    Raises:
        DataMissing, BrokenData, ValueError: as `read_table` and `class_names`, or a cut leaves a class empty.
    """
    found = read_table(options, sheet=sheet)
    (name,) = found.names
    if options.cuts:
        names = _named(options.cuts)
        labels = {split: _cut(found, split, options.cuts) for split in found.x}
        counts = torch.bincount(labels["train"], minlength=len(names))
        if not bool(counts.all()):
            empty = int((counts == 0).nonzero()[0])
            raise ValueError(f"cuts: no training row has {name!r} in class {names[empty]!r}")
    else:
        names = class_names(found, options.order)
        if not options.order and not all(map(is_number, names)):
            raise ValueError(f"order: the classes {', '.join(names[:12])} are no numbers: state their order")
        labels = class_numbers(found, names)
    data = found.split(labels, options.split_seed, classes=True)
    info = partial(TableInfo, columns=found.columns, target=name)
    return OrdinalTask(data, names, options.within, bounds=found.bounds, info=info)


def _named(cuts: Sequence[float]) -> list[str]:
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]:g}", *inner, f"{cuts[-1]:g} and above"]


def _cut(found: Table, split: Split, cuts: Sequence[float]) -> Tensor:
    numbers = numbers_of(found, split)
    return torch.bucketize(numbers, torch.tensor(cuts, dtype=torch.float32), right=True)


def numbers_of(found: Table, split: Split, name: str = "") -> Tensor:
    """Return a numeric target of the rows of a split, float32 (N,).

    Raises:
        ValueError: a value is missing, or no finite number; the message has file and line.
    """
    name = name or found.names[0]
    values = found.targets[split][name]
    for row, value in enumerate(values):
        if missing(value) or not is_number(str(value)):
            what = "is empty" if missing(value) else f"holds {value!r}, which is no finite number"
            raise ValueError(f"target: {found.sheets[split].at(row)}: the column {name!r} {what}")
    return torch.tensor([float(value) for value in values], dtype=torch.float32)
