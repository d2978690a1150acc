"""Samples in memory: inputs and labels of any kind, served in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...core.batches import index_batches, to_device
from ...core.types import Batch, Feed, Split, TaskInfo
from .arrays import UNIT, Bounds, as_inputs, checked_bounds, outside
from .statistics import channel_statistics, unit_floats

# Changes the inputs (N, …) of a training batch: (inputs, feed, number of the batch) → inputs.
Augment = Callable[[Tensor, Feed, int], Tensor]
# What was drawn for the samples of a raw batch, in its info.
DRAWN = "drawn"


@runtime_checkable
class DrawnAugment(Protocol):
    """An `Augment` that draws apart from the work of the device."""

    def draw(self, feed: Feed, number: int, rows: int) -> Tensor:
        """Draw for the rows of a batch, (N, …) on the CPU."""
        ...

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return the inputs changed as it was drawn."""
        ...


class InMemory:
    """Serve inputs and labels from memory; a subclass scores outputs.

    The tensors stay on the CPU as they are; the first batch for another device copies the split there, once,
    uint8 as uint8. Batches are indexed, augmented and converted to float32 on that device. uint8 inputs
    become float32 in [0, 1], unless bounds say otherwise. A sample's index is its place within its split.

    Args:
        data: inputs of some splits, see `as_inputs`, and their labels: tensors with as many rows. Training
            needs "train", "validation" and "test", an evaluation one of them.
        info: what is known besides the sizes, the shape, mean, std and bounds, which are found here.
        bounds: (low, high), numbers or one for each channel or feature.
        augmentation: changes training batches.

    Raises:
        ValueError: there is no split, inputs differ in shape or leave the bounds, or labels are too few.
    """

    def __init__(
        self,
        data: Mapping[Split, tuple[Any, Tensor]],
        *,
        info: Callable[..., TaskInfo] = TaskInfo,
        bounds: Bounds = UNIT,
        augmentation: Augment | None = None,
    ) -> None:
        self._data: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, (inputs, labels) in data.items():
            x = as_inputs(inputs, f"the {split} inputs")
            if labels.ndim == 0 or len(labels) != len(x):
                raise ValueError(
                    f"the {split} labels have the shape {tuple(labels.shape)}, but there are {len(x)} inputs"
                )
            self._data[split] = x, labels
        if not self._data:
            raise ValueError("there is no split")
        first = next(iter(self._data.values()))[0]
        shape = tuple(first.shape[1:])
        self.bounds = checked_bounds(bounds, shape)
        for split, (x, _) in self._data.items():
            if tuple(x.shape[1:]) != shape:
                raise ValueError(f"the {split} inputs have the shape {tuple(x.shape[1:])}, others {shape}")
            why = outside(x, self.bounds)
            if why:
                raise ValueError(f"the {split} inputs: {why}")
        mean, std = channel_statistics(
            self._data["train"][0] if "train" in self._data else first, self.bounds
        )
        self.info = info(
            sizes={split: len(y) for split, (_, y) in self._data.items()},
            shape=shape,
            mean=mean,
            std=std,
            bounds=self.bounds,
        )
        self._augmentation = augmentation
        self._copies: dict[tuple[Split, str], tuple[Tensor, Tensor]] = {}

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`."""
        return map(self.ready, self.raw_batches(split, feed))

    def raw_batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the same batches as they are kept, on `feed.device`, with what was drawn for each sample."""
        inputs, labels = self._on(split, feed.device)
        augmentation = self._augmentation if feed.augment else None
        for number, positions in enumerate(index_batches(len(labels), feed), feed.skip):
            index = to_device(positions, feed.device)
            x, info = inputs[index], dict[str, Tensor]()
            if isinstance(augmentation, DrawnAugment):
                info[DRAWN] = to_device(augmentation.draw(feed, number, len(x)), feed.device)
            elif augmentation is not None:
                x = augmentation(x, feed, number)
            yield Batch(x, labels[index], index, info)

    def ready(self, batch: Batch) -> Batch:
        """Return a raw batch augmented and in float32, which is work of its device alone."""
        x, drawn = batch.x, batch.info.get(DRAWN)
        if drawn is not None and isinstance(self._augmentation, DrawnAugment):
            x = self._augmentation.apply(x, drawn)
        return Batch(unit_floats(x) if self.bounds == UNIT else x.float(), batch.y, batch.index)

    def digest(self) -> str:
        """Return the SHA-256 of all inputs, labels and bounds."""
        found = hashlib.sha256(repr(self.bounds).encode())
        for split, tensors in sorted(self._data.items()):
            for tensor in tensors:
                found.update(f"{split} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                for part in torch.split(tensor, 4096):
                    found.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _on(self, split: Split, device: str) -> tuple[Tensor, Tensor]:
        if (split, device) not in self._copies:
            inputs, labels = self._data[split]
            self._copies[split, device] = inputs.to(device), labels.to(device)
        return self._copies[split, device]
