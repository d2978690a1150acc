"""From data to the three splits of a training run: validation and test are shares, or sets of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ...core.random import stream
from ...core.types import Split
from .arrays import UNIT, Bounds, checked_bounds
from .brought import Arrays, is_hugging_face, read_arrays, samples_of
from .dataset_task import DatasetTask, is_random
from .statistics import stratified_split
from .task import ArrayTask

RANDOM = (
    "the transforms of data are random, those of the samples held out for validation included: give "
    "validation a data set of its own without augmentation"
)


def training_task(
    data: Any,
    validation: Any,
    test: Any = None,
    *,
    columns: Sequence[str] | None = None,
    bounds: Bounds | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> tuple[ArrayTask | DatasetTask, list[str]]:
    """Return a task with the splits train, validation and, if there is one, test; and notes for the reader.

    Args:
        data: training samples; see `read_arrays`. A data set with random transforms is read in each epoch.
        validation, test: shares of the training samples, in (0, 1), stratified by class, or sets of their
            own; None for no test split.
        columns, bounds, classes: as for `Opening`.
        seed: seed of the split.

    Raises:
        TypeError, ValueError: some data cannot be used, or a share is not in (0, 1).
    """
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        data = data.dataset
    fresh = (
        isinstance(data, Dataset)
        and not isinstance(data, TensorDataset | IterableDataset)
        and not is_hugging_face(data)
        and is_random(data, columns)
    )
    if fresh:
        y = torch.tensor([label for _, label in samples_of(data, columns, "data")])
        whole = Arrays(torch.empty(len(y), 0), y, tuple(map(str, getattr(data, "classes", ()) or ())))
    else:
        whole = read_arrays(data, columns)
    if bool((whole.y == whole.y[0]).all()):
        raise ValueError(
            f"all {len(whole.y)} training samples are of class {int(whole.y[0])}: give several classes"
        )
    others: dict[Split, Arrays] = {}
    shares: dict[Split, float] = {}
    asked: dict[Split, Any] = {"validation": validation, "test": test}
    for split, given in asked.items():
        if given is None:
            continue
        if isinstance(given, int | float) and not isinstance(given, bool):
            if not 0 < given < 1:
                raise ValueError(f"{split} = {given} is no share: give a number between 0 and 1, or a set")
            shares[split] = float(given)
        else:
            others[split] = read_arrays(given, columns, split)
    sizes = [max(1, round(share * len(whole.y))) for share in shares.values()]
    parts = stratified_split(whole.y, sizes, stream(seed, "split"))
    places: dict[Split, Tensor] = dict(zip(("train", *shares), parts, strict=True))
    count = classes or 1 + max(int(found.y.max()) for found in (whole, *others.values()))
    names = whole.class_names if len(whole.class_names) == count else ()
    if not fresh:
        arrays = {split: (whole.x[rows], whole.y[rows]) for split, rows in places.items()}
        arrays |= {split: (found.x, found.y) for split, found in others.items()}
        return ArrayTask(arrays, classes=count, class_names=names, bounds=bounds or UNIT), []
    sets: dict[Split, tuple[Any, Tensor]] = {split: (data, rows) for split, rows in places.items()}
    labels: dict[Split, Tensor] = {split: whole.y[rows] for split, rows in places.items()}
    for split, found in others.items():
        pairs = TensorDataset(found.x, found.y)
        sets[split], labels[split] = (pairs, torch.arange(len(found.y))), found.y
    shape = tuple(next(iter(samples_of(_first(data), columns, "data")))[0].shape)
    limits = checked_bounds(bounds or UNIT, shape)
    task = DatasetTask(sets, labels, columns=columns, classes=count, class_names=names, bounds=limits)
    return task, [RANDOM] if shares else []


def _first(data: Any) -> Sequence[Any]:
    return [data[0]]
