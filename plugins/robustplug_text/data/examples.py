"""Labelled texts, from tables, data sets of Hugging Face, Python's own documentation, or a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from robustplug.api import DataMissing, Split, is_file, load_data_set, stratified_split, stream

from .docstrings import documented
from .reviews import reviews
from .tables import read_table

if TYPE_CHECKING:
    from ..options import TextOptions

Pairs = Sequence[tuple[str, str]]
"""Texts and the names of their classes."""
_TABLES = (".csv", ".tsv")
_HELD_OUT: Mapping[Split, float] = {"validation": 0.1, "test": 0.2}
_USUAL: Mapping[Split, tuple[str, ...]] = {
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Examples:
    """Hold the texts of each split, their class numbers, and the names of the classes."""

    texts: Mapping[Split, Sequence[str]]
    labels: Mapping[Split, Sequence[int]]
    class_names: tuple[str, ...]


def read_examples(options: TextOptions) -> Examples:
    """Return the samples of a task.

    Raises:
        DataMissing: there are no such data.
        BrokenData: a row cannot be used; the message lists file and line.
        ValueError: a split or a column does not exist, or the classes of the splits differ.
    """
    if options.data == "synthetic":
        return _held_out(reviews(options.reviews, options.split_seed), options)
    if options.data == "docstrings":
        return _held_out(documented(), options)
    if Path(options.data).suffix.lower() in _TABLES:
        return _of_tables(options)
    if is_file(options.data):
        raise DataMissing(f"{options.data} is no table of texts: give a file .csv or .tsv, or a folder")
    return _of_data_set(options)


def _of_tables(options: TextOptions) -> Examples:
    train = read_table(Path(options.data), options)
    asked: tuple[tuple[Split, str | float | None], ...] = (
        ("validation", options.validation),
        ("test", options.test),
    )
    given = {split: read_table(Path(name), options) for split, name in asked if isinstance(name, str)}
    return _held_out(train, options, given)


def _of_data_set(options: TextOptions) -> Examples:
    from .datasets import pairs

    known = load_data_set(options.data, "task.data")
    names: dict[Split, str] = {}
    asked: tuple[tuple[Split, str | float | None], ...] = (
        ("validation", options.validation),
        ("test", options.test),
    )
    for split, wanted in asked:
        found = next((name for name in _USUAL[split] if name in known), None) if wanted is None else wanted
        if isinstance(found, str):
            names[split] = found
    for name in ("train", *names.values()):
        if name not in known:
            raise ValueError(f"{options.data} has no split {name!r}; it has {', '.join(known)}")
    given = {split: pairs(known[name], name, options) for split, name in names.items()}
    return _held_out(pairs(known["train"], "train", options), options, given)


def _held_out(train: Pairs, options: TextOptions, given: Mapping[Split, Pairs] | None = None) -> Examples:
    """Return all splits; those that are not given are held out from the training samples."""
    splits: dict[Split, Pairs] = {"train": train, **(given or {})}
    names = tuple(sorted({label for _, label in train}, key=_by_number))
    if len(names) < 2:
        raise ValueError(f"all training texts are of the class {names[0]!r}: there is nothing to classify")
    for split, rows in splits.items():
        unknown = sorted({label for _, label in rows} - set(names))
        if unknown:
            raise ValueError(f"the {split} split has the class {unknown[0]!r}, which no training text has")
    numbers = {name: number for number, name in enumerate(names)}
    wanted = {"validation": options.validation, "test": options.test}
    shares = {split: wanted[split] for split in _HELD_OUT if split not in splits}
    sizes = [
        max(1, round(float(_HELD_OUT[split] if share is None else share) * len(train)))
        for split, share in shares.items()
    ]
    labels = torch.tensor([numbers[label] for _, label in train])
    if sum(sizes) >= len(train):
        raise ValueError(f"holding out {sum(sizes)} of {len(train)} texts leaves none for training")
    parts = stratified_split(labels, sizes, stream(options.split_seed, "text", "split"))
    kept: tuple[Split, ...] = ("train", *shares)
    for split, part in zip(kept, parts, strict=True):
        splits[split] = [train[row] for row in part.sort().values.tolist()]
    return Examples(
        {split: [text for text, _ in rows] for split, rows in splits.items()},
        {split: [numbers[label] for _, label in rows] for split, rows in splits.items()},
        names,
    )


def _by_number(name: str) -> tuple[bool, float, str]:
    """Sort numbers as numbers, before names."""
    return (False, float(name), name) if name.isdecimal() else (True, 0.0, name)
