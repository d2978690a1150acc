"""Serve pictures that are decoded on demand, from files, archives or tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...api import (
    Batch,
    BrokenData,
    Feed,
    Split,
    TaskInfo,
    View,
    channel_statistics,
    classification_score,
    index_batches,
    picture_tensor,
    read_picture,
    stream,
    unit_floats,
)
from . import Alpha, PictureOptions
from .augment import random_crop, random_flip
from .inspection import Inspection, Samples, Size, Source, held_out, mixed
from .labels import class_numbers

STATISTICS_SAMPLES = 256
# Statistics are taken of at most this many numbers.
_STATISTICS_VALUES = 1 << 28
SMALL = 64
"""Images up to this size are augmented like CIFAR, larger ones like ImageNet."""
_PAD = 4
# The default model for small images needs this many pixels each way.
_RESNET = 9

Box = tuple[int, int, int, int]


class PictureTask:
    """Classify pictures; they are decoded on demand.

    Inputs are float32 (N, 3, H, W) in [0, 1], whatever the files' bit depth. `info.mean` and `info.std` are
    those of the first 256 training images in stored order.

    Args:
        samples: sources and labels of each split, in stored order; all of them checked.
        class_names: names of the classes.
        inspection: the check that found them sound.
        notes: further notes for the user.

    Attributes:
        notes: what the user should read about the data.
        broken: a message for each picture that was skipped.

    Raises:
        ValueError: the size must be given, or a picture would have to be enlarged.
        BrokenData: one of the first pictures cannot be decoded.
    """

    def __init__(
        self,
        samples: Mapping[Split, Samples],
        class_names: Sequence[str],
        inspection: Inspection,
        notes: Sequence[str] = (),
    ) -> None:
        self._samples, self._options = dict(samples), inspection.options
        self._size = inspection.size()
        self.notes = (*notes, *inspection.notes())
        self.broken = tuple(inspection.broken)
        self._labels = {
            split: torch.tensor([label for _, label in own], dtype=torch.int64)
            for split, own in self._samples.items()
        }
        height, width = self._size
        count = max(1, min(STATISTICS_SAMPLES, _STATISTICS_VALUES // (3 * height * width)))
        first = self._samples["train" if "train" in self._samples else next(iter(self._samples))][:count]
        alpha = self._options.alpha
        mean, std = channel_statistics(stacked([decode(source, self._size, alpha) for source, _ in first]))
        self.info = TaskInfo(
            sizes={split: len(own) for split, own in self._samples.items()},
            shape=(3, height, width),
            classes=len(class_names),
            class_names=tuple(class_names),
            mean=mean,
            std=std,
        )
        small = "preact-resnet18" if min(self._size) >= _RESNET else "small-cnn"
        self.default_model = small if max(self._size) <= SMALL else "torchvision"

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`.

        Raises:
            BrokenData: an image cannot be decoded.
        """
        samples, labels = self._samples[split], self._labels[split]
        wanted = list(index_batches(len(samples), feed))
        places = wanted
        if feed.order is not None:
            # A sample that occurs again in an epoch is augmented anew.
            in_order = dataclasses.replace(feed, order=torch.arange(len(feed.order)))
            places = list(index_batches(len(samples), in_order))
        images = _Images([source for source, _ in samples], self._size, self._options, feed)
        pinned = torch.device(feed.device).type == "cuda"
        loader: DataLoader[Tensor | BrokenData] = DataLoader(
            images,
            batch_size=None,
            sampler=[
                list(zip(own.tolist(), at.tolist(), strict=True))
                for own, at in zip(wanted, places, strict=True)
            ],
            num_workers=min(self._options.workers, len(wanted)),
            pin_memory=pinned,
            # The loader draws a seed for its workers, by default from the global generator.
            generator=stream(feed.seed, "loader", feed.epoch),
        )
        for index, x in zip(wanted, loader, strict=True):
            if isinstance(x, BrokenData):
                raise x
            yield Batch(
                unit_floats(x.to(feed.device, non_blocking=pinned)),
                labels[index].to(feed.device),
                index.to(feed.device),
            )

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each sample whether the largest output is at the label: bool (N,)."""
        return classification_score(view, output)

    def labels(self, split: Split) -> Tensor:
        """Return the labels of a split, int64 (N,)."""
        return self._labels[split]

    def sample_name(self, split: Split, index: int) -> str:
        """Return the name of the picture of a sample."""
        return str(self._samples[split][index][0])


def labelled_task(
    found: Mapping[Split, Sequence[tuple[Source, Any]]],
    class_names: Sequence[str],
    shares: Mapping[Split, float],
    options: PictureOptions,
    inspection: Inspection,
) -> PictureTask:
    """Build a task of pictures with labels.

    Args:
        found: sources and labels of each split that the data have.
        class_names: names of the classes, if labels are class numbers; empty to take the classes from the
            labels.
        shares: shares of the training samples that are held out for the splits that the data lack.
        options: what is asked of the pictures.
        inspection: checks them.

    Raises:
        BrokenData: pictures cannot be read, unless they are to be skipped.
        ValueError: labels cannot be used, there is one class, or a split has classes that the training split
            lacks.
    """
    labels = {split: [label for _, label in own] for split, own in found.items()}
    numbers, names = class_numbers(labels, len(class_names) or None)
    count = 1 + max(int(own.max()) for own in numbers.values())
    names = list(class_names) or names or [str(number) for number in range(count)]
    samples: dict[Split, Samples] = {
        split: inspection.sound(
            [(source, int(label)) for (source, _), label in zip(own, numbers[split], strict=True)]
        )
        for split, own in found.items()
    }
    if "train" not in samples:
        parts = {split: mixed(own, options.split_seed) for split, own in samples.items()}
        return PictureTask(parts, names, inspection)
    known = {label for _, label in samples["train"]}
    if len(known) == 1:
        raise ValueError(
            f"all training samples are of the class {names[min(known)]}: a classification needs two"
        )
    for split, own in samples.items():
        lacking = sorted({label for _, label in own} - known)
        if lacking:
            listed = ", ".join(names[label] for label in lacking)
            raise ValueError(f"the {split} samples have classes that the training samples lack: {listed}")
    validation, test = (samples.get(split) or shares[split] for split in ("validation", "test"))
    parts = held_out(samples["train"], validation, test, options.split_seed)
    return PictureTask(parts, names, inspection)


class _Images(Dataset[Tensor | BrokenData]):
    """Decode the images of a batch.

    An error is returned, not raised: torch would wrap a worker's error in the text of its traceback.
    """

    def __init__(self, sources: list[Source], size: Size, options: PictureOptions, feed: Feed) -> None:
        self.sources, self.size, self.alpha, self.feed = sources, size, options.alpha, feed
        self.augment = feed.augment and options.augment

    def __getitem__(self, rows: list[tuple[int, int]]) -> Tensor | BrokenData:
        try:
            return stacked([self._read(position, place) for position, place in rows])
        except BrokenData as error:
            return error

    def _read(self, position: int, place: int) -> Tensor:
        if not self.augment:
            return decode(self.sources[position], self.size, self.alpha)
        again = () if self.feed.order is None else (place,)
        rng = stream(self.feed.seed, "augment", self.feed.epoch, position, *again)
        return decode(self.sources[position], self.size, self.alpha, rng)


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Stack images; where only some have 8 bits, all become float32 in [0, 1]."""
    same = len({image.dtype for image in images}) == 1
    return torch.stack([image if same else unit_floats(image) for image in images])


def decode(source: Source, size: Size, alpha: Alpha = "refuse", rng: torch.Generator | None = None) -> Tensor:
    """Read an image as (3, *size), uint8 or float32 in [0, 1], augmented if a generator is given.

    Without augmentation, the largest centred part of these proportions is resized; an image that already has
    the target size is unchanged. Grey images get three equal channels.

    Raises:
        BrokenData: the picture cannot be read; the message names it.
    """
    opened = source if isinstance(source, str) else source.open()
    image, (height, width) = read_picture(opened, alpha, str(source)), size
    random_area = rng is not None and max(size) > SMALL
    if rng is not None and random_area:
        box = random_box(*image.size, rng, size)
    else:
        box = centre_box(*image.size, size)
    # Rounding may leave [0, 1] by a little.
    x = picture_tensor(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    x = (x.clamp_(0, 1) if x.is_floating_point() else x).expand(3, -1, -1)
    if rng is None:
        return x
    if not random_area:
        top, left = torch.randint(2 * _PAD + 1, (2, 1), generator=rng)
        x = random_crop(x[None], _PAD, top, left)[0]
    return random_flip(x[None], torch.randint(2, (1,), generator=rng).bool())[0]


def centre_box(width: int, height: int, size: Size = (1, 1)) -> Box:
    """Return the largest centred part of an image with the proportions of a (height, width), a square.

    The result is left, upper, right, lower.
    """
    scale = min(width / size[1], height / size[0])
    w, h = round(scale * size[1]), round(scale * size[0])
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def random_box(width: int, height: int, rng: torch.Generator, size: Size = (1, 1)) -> Box:
    """Draw a box of 8 to 100 % of the area with aspect ratio 3/4 to 4/3 (Szegedy et al. 2015).

    The first of ten drawn sizes that fits is placed at random; if none fits, `centre_box` is returned. This
    is torchvision's RandomResizedCrop with an explicit generator.
    """
    for area, log_ratio in torch.rand(10, 2, generator=rng, dtype=torch.float64).tolist():
        pixels = width * height * (0.08 + 0.92 * area)
        ratio = math.exp((2 * log_ratio - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(width - w + 1, (), generator=rng))
            upper = int(torch.randint(height - h + 1, (), generator=rng))
            return left, upper, left + w, upper + h
    return centre_box(width, height, size)
