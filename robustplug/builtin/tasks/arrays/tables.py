"""Tables in .csv, .tsv and .parquet files: features as float32, and a column of labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ....api import (
    BrokenData,
    Unreadable,
    check_size,
    did_you_mean,
    find_column,
    has_names,
    is_number,
    open_file,
    table_lines,
)
from .. import ArraysOptions
from .files import Part, Parts, loaded

_MEND = 'task.label = "NAME"'
# Rows that are converted at a time.
_AT_ONCE = 4096
# Bytes of a cell of a Parquet table in memory.
_CELL = 8

Line = tuple[int, list[str]]


def read_csv(file: Path, options: ArraysOptions) -> Parts:
    """Read a table of text, with or without a line of names; columns without names are numbered from 0.

    Raises:
        BrokenData: it is no such table.
        ValueError: the columns that are asked for do not exist, or a feature is no number.
    """
    try:
        with io.TextIOWrapper(open_file(file), newline="", encoding="utf-8-sig") as text:
            return {None: _table(text, file, options)}
    except Unreadable as error:
        raise BrokenData(f"{file} {error}") from error
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise BrokenData(f"{file} cannot be read: {error}") from error


def _table(text: TextIO, file: Path, options: ArraysOptions) -> Part:
    lines = table_lines(text)
    head = list(islice(lines, 2))
    if not head:
        raise BrokenData(f"{file} is empty")
    named = has_names(head[0][1], head[-1][1])
    known = [name.strip() for name in head[0][1]] if named else [str(at) for at in range(len(head[0][1]))]
    label, features = columns_of(known, file, options)
    places = [known.index(name) for name in features]
    x, y = [], []
    for block in _blocks(chain(head[named:], lines)):
        for number, row in block:
            if len(row) != len(known):
                raise BrokenData(f"{file}, line {number}: {len(row)} cells, but the first has {len(known)}")
        y += [row[known.index(label)].strip() for _, row in block]
        try:
            numbers = np.array([[row[at] for at in places] for _, row in block], dtype=np.float64)
        except ValueError:
            numbers = np.array(np.nan)
        if not np.isfinite(numbers).all():
            raise ValueError(_no_number(block, known, places, file))
        x.append(numbers.astype(np.float32))
    if not x:
        raise BrokenData(f"{file} has names of columns, but no rows")
    # Numbers in the place of names say nothing that another file could contradict.
    names = tuple(features) if named or options.features else ()
    return Part(np.concatenate(x), np.array(y), names)


def columns_of(known: Sequence[str], file: Path, options: ArraysOptions) -> tuple[str, list[str]]:
    """Return the names of the label column and of the feature columns.

    Raises:
        ValueError: a column does not exist, is both, or it does not show which is the label.
    """
    label = options.label
    if isinstance(label, int):
        if not -len(known) <= label < len(known):
            raise ValueError(f"label = {label}, but {file} has {len(known)} columns")
        label = known[label]
    if label is None:
        label = find_column(known, "label", str(file), f"{_MEND} or its number, task.label = -1 for the last")
    features = list(options.features) or [name for name in known if name != label]
    for key, name in (("label", label), *(("features", name) for name in features)):
        if known.count(name) != 1:
            close = did_you_mean(name, known)
            hint = f'did you mean "{close}"?' if close else f"it has {', '.join(known)}"
            many = "several columns" if name in known else "no column"
            raise ValueError(f"{key}: {file} has {many} named {name!r}; {hint}")
    if label in features or not features:
        raise ValueError(f"features: {label!r} is the label" if features else f"{file} has no features")
    return label, features


def _blocks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while block := list(islice(lines, _AT_ONCE)):
        yield block


def _no_number(block: Sequence[Line], known: Sequence[str], places: Sequence[int], file: Path) -> str:
    number, name, cell = next(
        (number, known[at], row[at]) for number, row in block for at in places if not is_number(row[at])
    )
    what = f"holds {cell!r}, which is no finite number" if cell.strip() else "is empty"
    return (
        f"features: {file}, line {number}: the column {name!r} {what}; mend the row, or leave the column "
        'out: task.features = ["NAME", …]'
    )


def read_parquet(file: Path, options: ArraysOptions) -> Parts:
    """Read a table of numbers with one column of labels.

    Raises:
        BrokenData: the file cannot be read.
        ValueError: pyarrow is not installed, the columns that are asked for do not exist, or a feature is no
            number.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f'{file} needs pyarrow ({error}): pip install "robustplug[parquet]"') from error
    facts = loaded(file, lambda: parquet.read_metadata(file))
    known = loaded(file, facts.schema.to_arrow_schema).names
    label, features = columns_of(known, file, options)
    # A column of one value may have any number of rows in a few bytes.
    loaded(file, lambda: check_size(facts.num_rows * (1 + len(features)) * _CELL, "the table"))
    table = loaded(file, lambda: parquet.read_table(file, columns=[label, *features]))
    columns = [_numbers(table.column(name), name, file) for name in features]
    return {None: Part(np.stack(columns, 1), np.array(table.column(label).to_pylist()), tuple(features))}


def _numbers(column: Any, name: str, file: Path) -> Any:
    found = column.to_numpy()
    numeric = found.dtype.kind in "biuf" and not column.null_count
    if not numeric or not np.isfinite(found).all():
        what = f"of the type {column.type}" if not numeric and not column.null_count else "empty in some rows"
        raise ValueError(
            f"features: {file}: the column {name!r} is {what}; it must hold finite numbers: mend it, or "
            'leave it out: task.features = ["NAME", …]'
        )
    return found.astype(np.float32)
