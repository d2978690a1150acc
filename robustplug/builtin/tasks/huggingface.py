"""Data sets of Hugging Face: from the Hub, or from a folder."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...api import (
    ArrayTask,
    BrokenData,
    Split,
    Unreadable,
    find_column,
    load_data_set,
    read_bytes,
)
from . import HuggingFaceOptions
from .arrays.files import Part
from .arrays.task import array_task
from .inspection import Inspection, Source
from .picture_task import PictureTask, labelled_task

_MEND = 'task.columns = ["INPUT", "LABEL"]'
# The names that the splits of data sets usually have.
_USUAL: Mapping[Split, tuple[str, ...]] = {
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A picture in a row of a data set whose pictures are not decoded.

    Attributes:
        data: the data set.
        column: name of its column of pictures.
        split: name of the split, for messages.
        position: number of the row.
    """

    data: Any
    column: str
    split: str
    position: int

    def open(self) -> IO[bytes]:
        """Return the encoded picture.

        Raises:
            BrokenData: the row holds none, or its file cannot be read.
        """
        found = self.data[self.position][self.column]
        if found is None or (found["bytes"] is None and not found["path"]):
            raise BrokenData(f"{self} holds no picture")
        try:
            return io.BytesIO(
                found["bytes"] if found["bytes"] is not None else read_bytes(Path(found["path"]))
            )
        except (OSError, Unreadable) as error:
            raise BrokenData(f"{self} cannot be read: {error}") from error

    def __str__(self) -> str:
        return f"row {self.position} of {self.split}"


def huggingface(options: HuggingFaceOptions) -> PictureTask | ArrayTask:
    """Build the task: pictures are decoded on demand, everything else is read into memory.

    Raises:
        DataMissing: there is no such data set, or it cannot be reached.
        BrokenData: pictures cannot be read, unless they are to be skipped.
        ValueError: `datasets` is not installed; a split or a column does not exist; inputs or labels cannot
            be used.
    """
    known = load_data_set(options.name, "task.name", options.config, options.revision, options.train)
    names, shares = choose_splits(known, options)
    first = known[next(iter(names.values()))]
    columns = options.columns or (
        find_column(first.column_names, "input", options.name, _MEND),
        find_column(first.column_names, "label", options.name, _MEND),
    )
    for column in columns:
        if column not in first.column_names:
            raise ValueError(f"columns: {options.name} has no column {column!r}; it has {first.column_names}")
    inputs, labels = columns
    class_names = list(getattr(first.features[labels], "names", None) or ())
    targets = {split: list(known[name].select_columns([labels])[:][labels]) for split, name in names.items()}
    if type(first.features[inputs]).__name__ == "Image":
        found = {split: _rows(known[name], inputs, name, targets[split]) for split, name in names.items()}
        return labelled_task(found, class_names, shares, options, Inspection(options))
    parts = {
        split: Part(_values(known[name], inputs), np.array(targets[split])) for split, name in names.items()
    }
    return array_task(parts, shares, class_names, None, options.bounds, options.split_seed)


def choose_splits(
    known: Iterable[str], options: HuggingFaceOptions
) -> tuple[dict[Split, str], dict[Split, float]]:
    """Return the name of each split that the data have, and the shares of training samples for the others.

    Raises:
        ValueError: a split does not exist.
    """
    names: dict[Split, str] = {"train": options.train} if options.train in known else {}
    shares: dict[Split, float] = {}
    asked: tuple[tuple[Split, str | float | None, float], ...] = (
        ("validation", options.validation, 0.1),
        ("test", options.test, 0.2),
    )
    for split, given, share in asked:
        if given is None:
            given = next((name for name in _USUAL[split] if name in known), share)
        if isinstance(given, str):
            names[split] = given
        elif names:
            shares[split] = given
    named = [options.train] if options.train != HuggingFaceOptions.train else []
    for name in (*named, *names.values()):
        if name not in known:
            raise ValueError(f"{options.name} has no split {name!r}; it has {', '.join(known)}")
    if not names:
        raise ValueError(f"{options.name} has the splits {', '.join(known)}: say which, task.train")
    return names, shares


def _rows(data: Any, inputs: str, split: str, targets: Sequence[Any]) -> list[tuple[Source, Any]]:
    from datasets import Image

    raw = data.select_columns([inputs]).cast_column(inputs, Image(decode=False))
    return [(Row(raw, inputs, split, at), label) for at, label in enumerate(targets)]


def _values(data: Any, inputs: str) -> Any:
    kind = data.features[inputs]
    while hasattr(kind, "feature"):
        kind = kind.feature
    # All other integers and floats become int64 and float32.
    dtype = {"dtype": np.uint8} if getattr(kind, "dtype", "") == "uint8" else {}
    return np.asarray(data.select_columns([inputs]).with_format("numpy", **dtype)[:][inputs])
