"""Inputs and labels in files of arrays: .npz, .npy, .safetensors, and folders of .npy files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_args

import numpy as np

from ....api import (
    BrokenData,
    DataMissing,
    Split,
    Unreadable,
    check_zip,
    find_column,
    is_folder,
    open_file,
)
from .. import ArraysOptions

_MEND = 'task.features = ["NAME"], task.label = "NAME"'

# The split in the name of an array, such as x_train, train_images or test.labels.
_MARKED = re.compile(
    r"(?:(?P<before>train|validation|valid|val|test)[_.-])?(?P<base>.+?)"
    r"(?:[_.-](?P<after>train|validation|valid|val|test))?",
    re.IGNORECASE,
)

Loaded = TypeVar("Loaded")


class Part(NamedTuple):
    """Hold the inputs and the labels of some samples as a file has them; labels may be names.

    Attributes:
        features: names of the features of a table.
    """

    x: Any
    y: Any
    features: tuple[str, ...] = ()


Parts = dict[Split | None, Part]
"""What a file holds, by the split that the names of its arrays state; None for no split."""


def loaded(file: Path, read: Callable[[], Loaded]) -> Loaded:
    """Return what a function reads from a regular file or a folder.

    Raises:
        BrokenData: it raises anything; the message names the file.
    """
    try:
        if not is_folder(file):
            open_file(file).close()
        return read()
    except Exception as error:  # each format has its own errors for damaged files
        why = error if isinstance(error, Unreadable) else Unreadable.of(error)
        raise BrokenData(f"{file} {why}") from error


def read_npz(file: Path, options: ArraysOptions) -> Parts:
    """Read the arrays of a .npz file that hold inputs and labels."""
    with loaded(file, partial(_archive, file)) as archive:
        return named_parts({key: partial(archive.__getitem__, key) for key in archive}, file, options)


def _archive(file: Path) -> Any:
    with open_file(file) as opened:
        if zipfile.is_zipfile(opened):
            check_zip(file)
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise Unreadable("is one array, as in a .npy file: save it with the suffix .npy, or use numpy.savez")
    return archive


def read_safetensors(file: Path, options: ArraysOptions) -> Parts:
    """Read the tensors of a .safetensors file that hold inputs and labels."""
    from safetensors import safe_open

    with loaded(file, lambda: safe_open(file, "pt")) as archive:
        keys = list(archive.keys())
        return named_parts({key: partial(archive.get_tensor, key) for key in keys}, file, options)


def read_folder(folder: Path, options: ArraysOptions) -> Parts:
    """Read the .npy files of a folder that hold inputs and labels.

    Raises:
        DataMissing: it contains no .npy files.
    """
    files = sorted(file for file in folder.glob("*.npy") if not file.name.startswith("."))
    if not files:
        raise DataMissing(f"the folder {folder.absolute()} contains no .npy files")
    return named_parts({file.stem: partial(_mapped, file) for file in files}, folder, options)


def read_npy(file: Path, options: ArraysOptions) -> Parts:
    """Read a table (N, F + 1) whose column `label` is the label.

    Raises:
        ValueError: it is no such table.
    """
    table = loaded(file, partial(_mapped, file))
    if table.ndim != 2 or not isinstance(options.label, int):
        raise ValueError(
            f"{file} is one array of shape {table.shape}: put inputs and labels into one folder as x.npy and "
            "y.npy, and give the folder; or for a table give the number of its label column, task.label = -1"
        )
    if not -table.shape[1] <= options.label < table.shape[1]:
        raise ValueError(f"label = {options.label}, but {file} has {table.shape[1]} columns")
    return {None: Part(np.delete(table, options.label, 1), table[:, options.label])}


def _mapped(file: Path) -> Any:
    # Copy on write: what is not used is not read.
    open_file(file).close()
    array = np.load(file, allow_pickle=False, mmap_mode="c")
    if not isinstance(array, np.ndarray):
        raise Unreadable("is an archive of arrays: save it with the suffix .npz")
    return array


def named_parts(arrays: Mapping[str, Callable[[], Any]], file: Path, options: ArraysOptions) -> Parts:
    """Return the inputs and labels among named arrays, by split.

    Args:
        arrays: functions that read the arrays, by name.
        file: where they are, for errors.
        options: `features` and `label` name the arrays where they have unusual names.

    Raises:
        ValueError: it does not show which arrays are inputs and labels.
        BrokenData: one of them cannot be read.
    """
    if len(options.features) > 1 or isinstance(options.label, int):
        raise ValueError(f"{file} holds named arrays, no table: name one of each, {_MEND}")
    chosen = {"input": next(iter(options.features), None), "label": options.label}
    groups: dict[Split | None, dict[str, str]] = {}
    whole = any(name in arrays for name in chosen.values())
    for key in arrays:
        split, base = (None, key) if whole else _marked(key)
        groups.setdefault(split, {})[base] = key
    if set(arrays) == {"arr_0", "arr_1"}:  # np.savez(file, x, y)
        groups = {None: {"x": "arr_0", "y": "arr_1"}}
    if len(groups) > 1:
        groups.pop(None, None)
    parts: Parts = {}
    for split, bases in groups.items():
        what = f"{file}, split {split}," if split else str(file)
        pair = []
        for role in ("input", "label"):
            name = chosen[role]
            if name is not None and name not in bases:
                raise ValueError(f"{what} has no array {name!r}; it has {', '.join(map(repr, bases))}")
            found = name or find_column(bases, cast(Any, role), what, _MEND)
            pair.append(array := loaded(file, arrays[bases[found]]))
            # An entry of an archive that is no array comes as bytes; a header can state any number of values
            # that take no bytes.
            if isinstance(array, bytes) or not array.nbytes:
                raise BrokenData(f"{what}: {bases[found]!r} is empty, or no array")
        parts[split] = Part(pair[0], pair[1])
    return parts


def _marked(key: str) -> tuple[Split | None, str]:
    """Return the split in a name, and the rest of the name."""
    match = _MARKED.fullmatch(key)
    assert match is not None, key
    mark = (match["before"] or match["after"] or "").lower()
    split = "validation" if mark.startswith("val") else mark
    return (cast(Split, split), match["base"]) if split in get_args(Split) else (None, key)
