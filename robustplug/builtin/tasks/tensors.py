"""A classification task over images that are already in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from ...api import Batch, Feed, Split, TaskInfo, View, index_batches
from .augment import Augmentation
from .classification import channel_statistics, classification_score, unit_floats

_NO_AUGMENTATION = Augmentation()


class TensorTask:
    """Serve images and labels from memory.

    The tensors stay on the CPU as they are; the first batch asked for on another device copies their
    split there, once. Batches are indexed, augmented and converted to float32 on that device.
    A sample's index is its place within its split.
    """

    def __init__(
        self,
        data: Mapping[Split, tuple[Tensor, Tensor]],
        *,
        class_names: Sequence[str],
        default_model: str,
        augmentation: Augmentation = _NO_AUGMENTATION,
    ) -> None:
        """Take the splits.

        Args:
            data: for each of "train", "validation" and "test": images (N, C, H, W), uint8, or float
                in [0, 1]; and labels, int64 (N,).
            class_names: a name for every label.
            default_model: name of a model component that suits the images.
            augmentation: what a feed that asks for augmentation gets.

        Raises:
            ValueError: a split is missing or empty, or does not look like the above.
        """
        for split in get_args(Split):
            if split not in data:
                raise ValueError(f"no {split} split")
            _check(split, *data[split], classes=len(class_names))
        train = data["train"][0]
        mean, std = channel_statistics(train)
        self.info = TaskInfo(
            sizes={split: len(y) for split, (_, y) in data.items()},
            shape=tuple(train.shape[1:]),
            classes=len(class_names),
            class_names=tuple(class_names),
            mean=mean,
            std=std,
        )
        self.default_model = default_model
        self._augmentation = augmentation
        self._data = dict(data)
        self._copies: dict[tuple[Split, str], tuple[Tensor, Tensor]] = {}

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`."""
        images, labels = self._on(split, feed.device)
        for number, positions in enumerate(index_batches(len(labels), feed), feed.skip):
            index = positions.to(feed.device)
            x = images[index]
            if feed.augment:
                x = self._augmentation(x, feed, number)
            yield Batch(unit_floats(x), labels[index], index)

    def score(self, view: View, output: Tensor) -> Tensor:
        """Tell for each sample whether the largest output is at the label: bool (N,)."""
        return classification_score(view, output)

    def _on(self, split: Split, device: str) -> tuple[Tensor, Tensor]:
        if (split, device) not in self._copies:
            images, labels = self._data[split]
            self._copies[split, device] = images.to(device), labels.to(device)
        return self._copies[split, device]


def _check(split: str, x: Tensor, y: Tensor, classes: int) -> None:
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"{split} images must be (N, C, H, W), uint8 or float: {tuple(x.shape)}, {x.dtype}")
    if y.dtype != torch.int64 or y.shape != x.shape[:1] or not len(y):
        raise ValueError(
            f"{split} labels must be int64 ({len(x)},), at least one: {tuple(y.shape)}, {y.dtype}"
        )
    if x.is_floating_point() and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"{split} images must lie in [0, 1]: {x.min():g} to {x.max():g}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"{split} labels must lie in 0 to {classes - 1}: {y.min()} to {y.max()}")
