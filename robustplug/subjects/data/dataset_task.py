"""A classification task of a torch Dataset with random transforms, which is read anew in each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.batches import index_batches, to_device
from ...core.random import derive, isolated, other_generators
from ...core.types import Batch, Feed, Split, TaskInfo, View
from .arrays import UNIT, Bounds, as_inputs, outside
from .brought import samples_of
from .statistics import channel_statistics, classification_score, unit_floats

# Samples whose statistics stand for those of the training split.
STATISTICS_SAMPLES = 256


def read(data: Any, position: int, columns: Sequence[str] | None, *path: int | str) -> tuple[Tensor, int]:
    """Return a sample, with the global generators seeded from a path for its transforms."""
    # NumPy takes seeds of 32 bits.
    seed = derive(0, "sample", *path, position) % 2**32
    with isolated(seed), other_generators(seed):
        return next(iter(samples_of(_One(data, position), columns, "data")))


class _One:
    """Show one sample of a data set as a data set."""

    def __init__(self, data: Any, position: int) -> None:
        self.data, self.position = data, position

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Any:
        return self.data[self.position]


def is_random(data: Any, columns: Sequence[str] | None, samples: int = 8) -> bool:
    """Return whether samples of a data set depend on the global generators."""
    positions = range(0, len(data), max(1, len(data) // samples))
    return any(
        not torch.equal(read(data, at, columns, "one")[0], read(data, at, columns, "other")[0])
        for at in list(positions)[:samples]
    )


class DatasetTask:
    """Serve samples of data sets with random transforms.

    The transforms of a training sample draw from generators that are seeded with the run's seed, the epoch
    and the sample; those of other splits are the same in every epoch.

    Args:
        data: for each split a data set, and the positions of its samples in it.
        labels: labels of each split, int64 (N,).
        columns: names of the input and the label column of samples that are mappings.
        classes: number of classes.
        class_names: a name for every class; empty for none.
        bounds: (low, high), numbers or one for each channel or feature.

    Raises:
        ValueError: samples differ in shape, or leave the bounds.
    """

    def __init__(
        self,
        data: Mapping[Split, tuple[Any, Tensor]],
        labels: Mapping[Split, Tensor],
        *,
        columns: Sequence[str] | None,
        classes: int,
        class_names: Sequence[str] = (),
        bounds: Bounds = UNIT,
    ) -> None:
        self._data, self._labels, self._columns = dict(data), dict(labels), columns
        self.bounds = bounds
        first = self._read("train", torch.arange(min(STATISTICS_SAMPLES, len(labels["train"]))), 0, 0)
        why = outside(first, bounds)
        if why:
            raise ValueError(f"the training inputs: {why}")
        mean, std = channel_statistics(first, bounds)
        self.info = TaskInfo(
            sizes={split: len(y) for split, y in labels.items()},
            shape=tuple(first.shape[1:]),
            classes=classes,
            class_names=tuple(class_names),
            mean=mean,
            std=std,
            bounds=bounds,
        )
        self.default_model = "small-cnn" if len(self.info.shape or ()) == 3 else "mlp"

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`."""
        labels = self._labels[split]
        seed, epoch = (feed.seed, feed.epoch) if feed.augment else (0, 0)
        for positions in index_batches(len(labels), feed):
            x = to_device(self._read(split, positions, seed, epoch), feed.device)
            yield Batch(
                unit_floats(x) if self.bounds == UNIT else x.float(),
                to_device(labels[positions], feed.device),
                to_device(positions, feed.device),
            )

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether the largest output is at the label: bool (N,)."""
        return classification_score(view, output)

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, int64 (N,)."""
        return self._labels[split]

    def digest(self) -> str:
        """Return the SHA-256 of the labels and of the first samples of each split."""
        found = hashlib.sha256(repr(self.bounds).encode())
        for split, labels in sorted(self._labels.items()):
            found.update(f"{split} {len(labels)}\n".encode() + labels.numpy().tobytes())
            head = self._read(split, torch.arange(min(64, len(labels))), 0, 0)
            found.update(head.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _read(self, split: Split, positions: Tensor, seed: int, epoch: int) -> Tensor:
        data, places = self._data[split]
        samples = [read(data, int(places[at]), self._columns, seed, epoch)[0] for at in positions.tolist()]
        shapes = {tuple(x.shape) for x in samples}
        if len(shapes) > 1:
            raise ValueError(f"samples differ in shape: {', '.join(map(str, sorted(shapes)))}")
        return as_inputs(torch.stack(samples), f"the {split} inputs")
