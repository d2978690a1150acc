"""Tables as columns of values with names, from a file, a data frame or scikit-learn."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustplug.api import (
    BrokenData,
    DataMissing,
    Unreadable,
    check_size,
    did_you_mean,
    has_names,
    is_folder,
    is_number,
    open_file,
    table_lines,
)

from .options import BUNDLED

_LOADERS = {"breast-cancer": "load_breast_cancer", "wine": "load_wine", "diabetes": "load_diabetes"}
# Bytes of a cell of a Parquet table in memory.
_CELL = 8


@dataclass(frozen=True)
class Sheet:
    """Hold a table by columns.

    Attributes:
        source: where it is from, for errors.
        columns: values of each column, by its name, in order.
        lines: line of each row in its file; empty for rows that are counted from 0.
        target: name of the column to predict, if the source says so; "" otherwise.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int] = ()
    target: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def at(self, row: int) -> str:
        """Return where a row is, for errors."""
        return f"{self.source}, line {self.lines[row]}" if self.lines else f"{self.source}, row {row}"

    def column(self, name: str, key: str) -> Sequence[Any]:
        """Return the values of a column.

        Raises:
            ValueError: there is none of this name; the message starts with the key of the recipe.
        """
        if name in self.columns:
            return self.columns[name]
        close = did_you_mean(name, self.columns)
        hint = f'did you mean "{close}"?' if close else f"it has {', '.join(self.columns)}"
        raise ValueError(f"{key}: {self.source} has no column {name!r}; {hint}")


def missing(value: Any) -> bool:
    """Return whether a value of a table is none: empty, None or NaN."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def as_text(value: Any) -> str:
    """Return a class or category as text, other ones as another text; whole numbers have no decimals."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def from_frame(frame: Any, source: str = "the data frame") -> Sheet:
    """Return a pandas DataFrame, or a mapping from names to columns, as a sheet.

    Raises:
        ValueError: a name of a column occurs twice, columns differ in length, or there are no rows.
    """
    names = [str(name) for name in (frame.columns if hasattr(frame, "columns") else frame)]
    keys = list(frame.columns if hasattr(frame, "columns") else frame)
    if len(set(names)) != len(names):
        raise ValueError(f"{source}: a column is named twice: {', '.join(names)}")
    made = {
        name: values.tolist() if hasattr(values := frame[key], "tolist") else list(values)
        for name, key in zip(names, keys, strict=True)
    }
    lengths = {len(values): name for name, values in made.items()}
    if len(lengths) > 1:
        (few, one), (many, other) = sorted(lengths.items())[:2]
        raise ValueError(f"{source}: the column {one!r} has {few} rows, and {other!r} has {many}")
    return _with_rows(Sheet(source, made))


def bundled(name: str) -> Sheet:
    """Return one of scikit-learn's bundled sets, in its own units."""
    from sklearn import datasets

    found = getattr(datasets, _LOADERS[name])(**({"scaled": False} if name == "diabetes" else {}))
    columns: dict[str, Any] = {
        str(feature): found.data[:, at].tolist() for at, feature in enumerate(found.feature_names)
    }
    classes = getattr(found, "target_names", None)
    target = found.target.tolist() if classes is None else [str(classes[at]) for at in found.target]
    return Sheet(f'scikit-learn\'s "{name}"', {**columns, "target": target}, target="target")


def read_sheet(path: str) -> Sheet:
    """Return a bundled set, or the table in a file.

    Raises:
        DataMissing: there is no such file.
        BrokenData: it cannot be read.
        ValueError: it has another format, or pyarrow is missing.
    """
    if path in BUNDLED:
        return bundled(path)
    file = Path(path).expanduser()
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
    if file.suffix.lower() not in readers:
        raise ValueError(f"data: {path!r} is none of {', '.join(BUNDLED)}, and no {', '.join(readers)} file")
    try:
        if is_folder(file):
            raise BrokenData(f"{file} is a folder, and no table")
        open_file(file).close()
        return _with_rows(readers[file.suffix.lower()](file))
    except FileNotFoundError:
        raise DataMissing(f"there is no file {file.absolute()}") from None
    except Unreadable as error:
        raise BrokenData(f"{file} {error}") from error
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise BrokenData(f"{file} cannot be read: {error}") from error


def _with_rows(sheet: Sheet) -> Sheet:
    if not sheet.columns or not len(sheet):
        raise BrokenData(f"{sheet.source} has no rows")
    return sheet


def _read_csv(file: Path) -> Sheet:
    with io.TextIOWrapper(open_file(file), newline="", encoding="utf-8-sig") as text:
        rows = list(table_lines(text))
    if len(rows) < 2 or not has_names(rows[0][1], rows[1][1]):
        raise BrokenData(f"{file} needs a first line with the names of its columns, and rows below it")
    (_, names), *rows = rows
    names = [name.strip() for name in names]
    if len(set(names)) != len(names):
        raise BrokenData(f"{file}: a column is named twice: {', '.join(names)}")
    for line, cells in rows:
        if len(cells) != len(names):
            raise BrokenData(f"{file}, line {line}: {len(cells)} cells, but the first has {len(names)}")
    columns = {name: [_value(cells[at]) for _, cells in rows] for at, name in enumerate(names)}
    return Sheet(str(file), columns, [line for line, _ in rows])


def _value(cell: str) -> Any:
    return float(cell) if is_number(cell) else cell.strip()


def _read_parquet(file: Path) -> Sheet:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f'data: {file} needs pyarrow ({error}): pip install "robustplug[parquet]"'
        ) from error
    try:
        facts = parquet.read_metadata(file)
        # A column of one value may have any number of rows in a few bytes.
        check_size(facts.num_rows * facts.num_columns * _CELL, "the table")
        table = parquet.read_table(file)
    except Unreadable:
        raise
    except Exception as error:  # pyarrow has errors of its own for damaged files
        raise BrokenData(f"{file} cannot be read: {error}") from error
    return Sheet(str(file), {name: table.column(name).to_pylist() for name in table.column_names})
