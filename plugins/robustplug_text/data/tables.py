"""Tables of texts and labels, .csv or .tsv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustplug.api import BrokenData, DataMissing, Unreadable, did_you_mean, is_file, open_file

if TYPE_CHECKING:
    from ..options import TextOptions

SHOWN = 20
"""Number of broken rows that an error lists."""
TEXTS, LABELS = ("text", "sentence", "review", "content", "document"), ("label", "labels", "class", "target")
_DELIMITERS = ",;\t|"


def read_table(path: Path, options: TextOptions) -> list[tuple[str, str]]:
    """Return the texts and labels of a table whose first row has the names of the columns.

    Raises:
        DataMissing: there is no such file.
        BrokenData: rows cannot be used; the message gives file and line of the first 20.
        ValueError: a column does not exist.
    """
    if not is_file(path):
        raise DataMissing(f"there is no file {path.absolute()}: set task.data, task.validation and task.test")
    problems: list[str] = []
    found: list[tuple[str, str]] = []
    try:
        with io.TextIOWrapper(open_file(path), newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count))
            names = [name.strip() for name in next(reader, [])]
            text, label = columns(names, str(path), options)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if not row:
                    continue
                if len(row) != len(names):
                    problems.append(f"{where}: {len(row)} cells, but the first row has {len(names)}")
                elif why := wrong(row[text], row[label]):
                    problems.append(f"{where}: {why}")
                else:
                    found.append((row[text], row[label].strip()))
    except UnicodeDecodeError as error:
        raise BrokenData(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (OSError, Unreadable, csv.Error) as error:
        raise BrokenData(f"{path} cannot be read: {error}") from error
    refuse(problems, str(path))
    if not found:
        raise BrokenData(f"{path} holds no texts")
    return found


def columns(names: Sequence[str], source: str, options: TextOptions) -> tuple[int, int]:
    """Return the places of the columns of texts and labels.

    Raises:
        ValueError: a column does not exist, or does not show which it is.
    """
    places = []
    for key, wanted, usual in (("text", options.text, TEXTS), ("label", options.label, LABELS)):
        lowered = [name.lower() for name in names]
        at = next((lowered.index(name) for name in usual if name in lowered), None)
        if wanted is not None:
            at = names.index(wanted) if wanted in names else None
        if at is None:
            close = did_you_mean(wanted, names) if wanted else None
            hint = f'; did you mean "{close}"?' if close else f': set task.{key} = "NAME"'
            said = f"no column {wanted!r}" if wanted else f"no column of {key}s by a usual name"
            raise ValueError(f"{source} has {said}; it has {', '.join(map(repr, names))}{hint}")
        places.append(at)
    return places[0], places[1]


def wrong(text: object, label: object) -> str:
    """Return why a row cannot be used; "" if it can."""
    if not isinstance(text, str) or not text.strip():
        return "the text is empty" if text in (None, "") or isinstance(text, str) else "the text is no string"
    if "\0" in text:
        return "the text holds the character NUL; is it a text file?"
    return "" if str(label if label is not None else "").strip() else "the label is empty"


def refuse(problems: Sequence[str], source: str) -> None:
    """Raise an error that lists rows that cannot be used, if there are any.

    Raises:
        BrokenData: there are.
    """
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BrokenData(
            f"{source} has rows that are no text and label:\n" + "\n".join(problems[:SHOWN]) + more
        )
