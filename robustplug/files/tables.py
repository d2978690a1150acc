"""Tables of text: the cells of their lines, with line numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TextIO

from .reading import Unreadable

_DELIMITERS = ",;\t|"
# Characters that a line may have.
_LONGEST = 2**26


def table_lines(text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not empty; the first one shows the delimiter.

    Raises:
        Unreadable: a line is too long for a table.
        csv.Error: it is no table.
    """
    first = _line(text)
    text.seek(0)
    reader = csv.reader(iter(partial(_line, text), ""), delimiter=max(_DELIMITERS, key=first.count))
    return ((reader.line_num, row) for row in reader if any(row))


def _line(text: TextIO) -> str:
    line = text.readline(_LONGEST + 1)
    if len(line) > _LONGEST:
        raise Unreadable(f"is no table: a line has more than {_LONGEST} characters")
    return line


def has_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first row of a table holds names: its second has a number where this has a text."""
    pairs = zip(first, second, strict=False)
    return not any(map(is_number, first)) or any(is_number(b) and not is_number(a) for a, b in pairs)


def is_number(cell: str) -> bool:
    """Return whether a cell holds a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
