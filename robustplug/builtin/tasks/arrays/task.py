"""Images or tables in files of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....api import (
    ArrayTask,
    BrokenData,
    DataMissing,
    Split,
    TaskInfo,
    Unreadable,
    is_folder,
    open_file,
    stratified_split,
    stream,
)
from .. import ArraysOptions
from ..labels import class_numbers
from .files import Part, Parts, read_folder, read_npy, read_npz, read_safetensors
from .tables import read_csv, read_parquet

_READERS: dict[str, Callable[[Path, ArraysOptions], Parts]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_csv,
}
# Numbers of channels by which images (N, H, W, C) are recognised.
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class NamedInfo(TaskInfo):
    """Describe a task on a table of numbers.

    Attributes:
        features: names of the columns, in the order of the inputs; empty where they have none.
    """

    features: tuple[str, ...] = ()

    @property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Return the input of each column by its name."""
        return {name: (at,) for at, name in enumerate(self.features)}


def arrays(options: ArraysOptions) -> ArrayTask:
    """Build the task; see ArraysOptions.

    Images (N, H, W, C) with 1, 3 or 4 channels become (N, C, H, W).

    Raises:
        DataMissing: no file is named, or it does not exist.
        BrokenData: a file cannot be read.
        ValueError: inputs or labels cannot be used, there is one class, or a split has classes that the
            training split lacks.
    """
    parts, shares = gather(options)
    return array_task(parts, shares, (), options.classes, options.bounds, options.split_seed)


def array_task(
    parts: Mapping[Split, Part],
    shares: Mapping[Split, float],
    class_names: Sequence[str],
    classes: int | None,
    bounds: Any,
    seed: int,
) -> ArrayTask:
    """Build a task from inputs and labels.

    Args:
        parts: what the data have.
        shares: shares of the training part that are held out for other splits; 0 for an empty split.
        class_names: names of the classes, if labels are class numbers.
        classes: number of classes, if known.
        bounds: lowest and highest value, "measured", or None for 0 and 1.
        seed: seed of the split.

    Raises:
        ValueError: as `arrays`.
    """
    known = len(class_names) or classes
    labels, found = class_numbers({split: part.y for split, part in parts.items()}, known)
    names = list(class_names) or found
    for split, part in parts.items():
        if len(part.x) != len(labels[split]):
            raise ValueError(f"{split}: there are {len(part.x)} inputs, but {len(labels[split])} labels")
    _check_classes(labels, names)
    inputs = {split: channels_first(part.x) for split, part in parts.items()}
    turned = any(tuple(inputs[split].shape) != tuple(part.x.shape) for split, part in parts.items())
    data: dict[Split, tuple[Any, Any]] = {split: (inputs[split], labels[split]) for split in parts}
    if any(shares.values()):
        data |= split_off(data, {split: share for split, share in shares.items() if share}, seed)
    features = _features(parts)
    limits: Any = measured(inputs, features) if bounds == "measured" else bounds or (0.0, 1.0)
    try:
        task = ArrayTask(
            data,
            classes=classes,
            class_names=names,
            bounds=limits,
            info=partial(NamedInfo, features=tuple(features)),
            notes=("the images were (N, H, W, C) and became (N, C, H, W)",) if turned else (),
        )
    except ValueError as error:
        if len(next(iter(inputs.values())).shape) == 2 and bounds is None and "their bounds" in str(error):
            raise ValueError(f'{error}; or bounds = "measured"') from error
        raise
    empty = {split: 0 for split, share in shares.items() if not share}
    task.info = replace(task.info, sizes={**task.info.sizes, **empty})
    return task


def _features(parts: Mapping[Split, Part]) -> tuple[str, ...]:
    """Return the names of the columns; empty where they have none.

    Raises:
        ValueError: the columns of a split are others than those of the first.
    """
    (first, part), *others = parts.items()
    for split, other in others:
        if part.features and other.features and other.features != part.features:
            pairs = zip_longest(other.features, part.features, fillvalue="none")
            found, wanted = next((one, two) for one, two in pairs if one != two)
            raise ValueError(
                f"features: where {first} has the column {wanted!r}, {split} has {found!r}; name the columns "
                'to take from both: task.features = ["NAME", …]'
            )
    return part.features


def gather(options: ArraysOptions) -> tuple[dict[Split, Part], dict[Split, float]]:
    """Read the files: the parts that the splits have, and the shares of the training part for the others.

    Raises:
        As `arrays`.
    """
    parts: dict[Split, Part] = {}
    main = options.path or options.train
    if main is not None:
        found = read_parts(main, options)
        if None in found:
            parts["train"] = found.pop(None)
        parts |= {split: part for split, part in found.items() if split is not None}
        if "train" not in parts:
            raise ValueError(f"{main} has no training samples, only {', '.join(parts)}: give it as task.test")
    shares: dict[Split, float] = {}
    given: dict[Split, float | str] = {"validation": options.validation, "test": options.test}
    for split, value in given.items():
        if isinstance(value, str):
            found = read_parts(value, options)
            parts[split] = found.get(split) or next(iter(found.values()))
        elif split not in parts and main is not None:
            shares[split] = value
    if not parts:
        raise DataMissing(
            "no file is named: task.path for one file, or task.train and task.test; for an evaluation "
            "task.test is enough"
        )
    return parts, shares


def read_parts(path: str, options: ArraysOptions) -> Parts:
    """Read a file of any known format.

    Raises:
        As `arrays`.
    """
    file = Path(path).expanduser()
    if is_folder(file):
        return read_folder(file, options)
    try:
        open_file(file).close()
    except FileNotFoundError:
        raise DataMissing(f"there is no file {file.absolute()}") from None
    except Unreadable as error:
        raise BrokenData(f"{file} {error}") from error
    if file.suffix.lower() not in _READERS:
        raise ValueError(f"{file} has another format than {', '.join(_READERS)}, or a folder of .npy files")
    return _READERS[file.suffix.lower()](file, options)


def channels_first(x: Any) -> Any:
    """Return images (N, C, H, W), also if they are (N, H, W, C); other inputs as they are."""
    if len(x.shape) != 4 or x.shape[3] not in _CHANNELS or x.shape[1] in _CHANNELS:
        return x
    return x.permute(0, 3, 1, 2) if isinstance(x, torch.Tensor) else x.transpose(0, 3, 1, 2)


def split_off(
    data: Mapping[Split, tuple[Any, Any]], shares: Mapping[Split, float], seed: int
) -> dict[Split, tuple[Any, Any]]:
    """Return the training part without the samples that shares of it hold out, stratified, and those."""
    x, y = data["train"]
    numbers = torch.as_tensor(np.asarray(y))
    numbers = numbers.argmax(1) if numbers.ndim == 2 else numbers.long()
    sizes = [max(1, round(share * len(numbers))) for share in shares.values()]
    places = stratified_split(numbers, sizes, stream(seed, "split"))
    return {split: (x[rows], y[rows]) for split, rows in zip(("train", *shares), places, strict=True)}


def measured(inputs: Mapping[Split, Any], features: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest value of each feature or channel over all splits.

    Raises:
        ValueError: a feature has a single value.
    """
    low, high = [], []
    for x in inputs.values():
        numbers = np.asarray(x.float() if isinstance(x, torch.Tensor) else x, dtype=np.float32)
        values = np.moveaxis(numbers, 1, 0).reshape(x.shape[1], -1)
        low.append(values.min(1))
        high.append(values.max(1))
    lowest, highest = np.min(low, 0), np.max(high, 0)
    constant = [features[at] if features else str(at) for at in np.flatnonzero(lowest == highest)]
    if constant:
        raise ValueError(
            f"features: {', '.join(constant)}: always the same value; leave them out, or give bounds"
        )
    return lowest.tolist(), highest.tolist()


def _check_classes(labels: Mapping[Split, Any], names: list[str]) -> None:
    if "train" not in labels:
        return
    known = np.unique(labels["train"], axis=0)
    if len(known) == 1:
        raise ValueError(
            f"the training labels are all {names[int(known[0])] if names else known[0]}: a "
            "classification needs two classes"
        )
    for split, own in labels.items():
        unknown: Any = np.setdiff1d(own, known) if names else []
        if len(unknown):
            listed = ", ".join(names[number] for number in unknown)
            raise ValueError(f"the {split} samples have classes that the training samples lack: {listed}")
