"""From the columns of a table to inputs of a network: numbers as they are, categories as 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustplug.api import Split, TaskInfo, did_you_mean, is_number, stratified_split, stream

from .options import SourceOptions
from .sheets import Sheet, as_text, missing, read_sheet

# Categories of a column.
_MOST = 1000


@dataclass(frozen=True)
class Column:
    """Describe a column of a table.

    Attributes:
        name: its name.
        places: its columns among the inputs: one of numbers, or one for each category.
        categories: names of the categories; empty for numbers.
        integer: whether its values are whole numbers.
        unit: its unit; "" for none.
    """

    name: str
    places: tuple[int, ...]
    categories: tuple[str, ...] = ()
    integer: bool = False
    unit: str = ""


@dataclass(frozen=True)
class TableInfo(TaskInfo):
    """Describe a task on a table.

    Attributes:
        columns: the columns of the table, in the order of the inputs.
        target: name of what is predicted.
        target_mean, target_std: mean and standard deviation of a numeric target in the training rows.
    """

    columns: tuple[Column, ...] = ()
    target: str = ""
    target_mean: float = 0.0
    target_std: float = 1.0

    @property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Return the inputs of each column by its name."""
        return {column.name: column.places for column in self.columns}


@dataclass(frozen=True)
class Table:
    """Hold the rows of a table as inputs, and the values of its targets.

    Attributes:
        x: inputs (N, F) of each split, float32, in the units of the table.
        targets: values of each target column, by split and name.
        sheets: the sheet of each split, for errors.
        bounds: lowest and highest value of each input.
        columns: the columns.
        names: names of the targets.
        shares: shares of the training rows that are held out.
    """

    x: Mapping[Split, Tensor]
    targets: Mapping[Split, Mapping[str, Sequence[Any]]]
    sheets: Mapping[Split, Sheet]
    bounds: tuple[tuple[float, ...], tuple[float, ...]]
    columns: tuple[Column, ...]
    names: tuple[str, ...]
    shares: Mapping[Split, float] = field(default_factory=dict)

    def split(self, labels: Mapping[Split, Tensor], seed: int, classes: bool) -> dict[Split, Any]:
        """Return inputs and labels of each split, after holding out what was asked for.

        Args:
            labels: labels of the rows that each split has so far.
            seed: seed of the split.
            classes: whether labels are classes, in whose proportions the parts are drawn.

        Raises:
            ValueError: no rows are left for training.
        """
        data: dict[Split, Any] = {split: (self.x[split], labels[split]) for split in self.x}
        if self.shares:
            x, y = data["train"]
            strata = y if classes else torch.zeros(len(y), dtype=torch.int64)
            sizes = [max(1, round(share * len(y))) for share in self.shares.values()]
            places = stratified_split(strata, sizes, stream(seed, "split"))
            parts = zip(("train", *self.shares), places, strict=True)
            data |= {split: (x[rows], y[rows]) for split, rows in parts}
        return {split: data[split] for split in ("train", "validation", "test") if split in data}


def read_table(options: SourceOptions, targets: Sequence[str] = (), sheet: Sheet | None = None) -> Table:
    """Read the files of a task and encode them.

    Args:
        options: where the rows are, and what the columns are.
        targets: names of several target columns; empty for the one of the options.
        sheet: rows that are given; None to read `options.data`.

    Raises:
        DataMissing, BrokenData: a file is missing or cannot be read.
        ValueError: a column does not exist, or a value is missing, no number, no whole number, outside its
            bounds, or a category that the training rows lack; the message has the key, or the file and line.
    """
    first = read_sheet(options.data) if sheet is None else sheet
    sheets: dict[Split, Sheet] = {"train": first}
    shares: dict[Split, float] = {}
    given: dict[Split, float | str] = {"validation": options.validation, "test": options.test}
    for split, value in given.items():
        if isinstance(value, str):
            sheets[split] = read_sheet(value)
        else:
            shares[split] = value
    names = tuple(targets) or (options.target or first.target,)
    if not names[0]:
        raise ValueError(
            f"target: {first.source} does not say what is predicted: name one of {', '.join(first.columns)}"
        )
    for name in names:
        first.column(name, "targets" if targets else "target")
    features = options.features or tuple(name for name in first.columns if name not in names)
    for key in ("categorical", "integers", "units", "bounds"):
        for name in getattr(options, key):
            if name not in features:
                close = did_you_mean(name, features)
                hint = f'; did you mean "{close}"?' if close else f": {', '.join(features)}"
                raise ValueError(f"{key}: {name!r} is no column of the inputs{hint}")
    columns: list[Column] = []
    blocks: dict[Split, list[Tensor]] = {split: [] for split in sheets}
    low: list[float] = []
    high: list[float] = []
    for name in features:
        values = {split: sheet.column(name, "features") for split, sheet in sheets.items()}
        for split, column in values.items():
            empty = next((row for row, value in enumerate(column) if missing(value)), None)
            if empty is not None:
                raise ValueError(
                    f"features: {sheets[split].at(empty)}: the column {name!r} is empty; fill it, or "
                    "leave the "
                    'row or the column out: task.features = ["NAME", …]'
                )
        categories = _categories(name, values["train"], options)
        at = len(low)
        if categories:
            for split, column in values.items():
                blocks[split].append(_one_hot(name, column, categories, sheets[split]))
            low += [0.0] * len(categories)
            high += [1.0] * len(categories)
        else:
            limits = options.bounds.get(name)
            found = {split: _numbers(name, values[split], sheets[split], options) for split in sheets}
            sides = limits or _extremes(name, found.values())
            for split, numbers in found.items():
                _check_bounds(name, numbers, sides, sheets[split])
                blocks[split].append(numbers[:, None])
            low.append(float(sides[0]))
            high.append(float(sides[1]))
        places = tuple(range(at, len(low)))
        unit = options.units.get(name, "")
        columns.append(Column(name, places, categories, name in options.integers, unit))
    if not columns:
        raise ValueError(f"features: {first.source} has no columns besides the target")
    wanted = {
        split: {name: sheet.column(name, "target") for name in names} for split, sheet in sheets.items()
    }
    x = {split: torch.cat(parts, 1) for split, parts in blocks.items()}
    return Table(x, wanted, sheets, (tuple(low), tuple(high)), tuple(columns), names, shares)


def _categories(name: str, values: Sequence[Any], options: SourceOptions) -> tuple[str, ...]:
    """Return the categories of a column, in order; none for numbers."""
    texts = [value for value in values if not is_number(str(value))]
    if name not in options.categorical and (len(texts) < len(values) or name in options.integers):
        return ()
    found = tuple(sorted({as_text(value) for value in values}))
    if len(found) < 2:
        raise ValueError(f"features: the column {name!r} always holds {found[0]!r}; leave it out")
    if len(found) > _MOST:
        raise ValueError(
            f"features: the column {name!r} has {len(found)} categories, too many for columns of 0 and 1; "
            'leave it out: task.features = ["NAME", …]'
        )
    return found


def _one_hot(name: str, values: Sequence[Any], categories: Sequence[str], sheet: Sheet) -> Tensor:
    known = {category: at for at, category in enumerate(categories)}
    numbers = [known.get(as_text(value), -1) for value in values]
    if -1 in numbers:
        row = numbers.index(-1)
        raise ValueError(
            f"features: {sheet.at(row)}: the column {name!r} holds {as_text(values[row])!r}, which no "
            "training row "
            f"has; they have {', '.join(categories[:12])}: leave the row out"
        )
    return torch.zeros(len(values), len(categories)).scatter_(1, torch.tensor(numbers)[:, None], 1.0)


def _numbers(name: str, values: Sequence[Any], sheet: Sheet, options: SourceOptions) -> Tensor:
    for row, value in enumerate(values):
        if not is_number(str(value)) and not isinstance(value, bool):
            raise ValueError(
                f"features: {sheet.at(row)}: the column {name!r} holds {value!r}, which is no finite "
                "number; mend "
                f'the row, or make categories of the column: task.categorical = ["{name}"]'
            )
        if name in options.integers and float(value) != round(float(value)):
            raise ValueError(
                f"integers: {sheet.at(row)}: the column {name!r} holds {float(value):g}, no whole number"
            )
    return torch.tensor([float(value) for value in values], dtype=torch.float32)


def _extremes(name: str, found: Any) -> tuple[float, float]:
    every = torch.cat(list(found))
    low, high = float(every.min()), float(every.max())
    if low == high:
        raise ValueError(
            f"features: the column {name!r} always holds {low:g}; leave it out, or give it bounds"
        )
    return low, high


def _check_bounds(name: str, numbers: Tensor, sides: tuple[float, float], sheet: Sheet) -> None:
    outside = ((numbers < sides[0]) | (numbers > sides[1])).nonzero()[:, 0]
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"bounds: {sheet.at(row)}: the column {name!r} holds {float(numbers[row]):g}, outside "
            f"[{sides[0]:g}, {sides[1]:g}]"
        )
