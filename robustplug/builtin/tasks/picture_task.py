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
    derive,
    index_batches,
    picture_tensor,
    read_picture,
    stream,
    to_device,
    unit_floats,
)
from . import Alpha, PictureOptions
from .augment import random_crop, random_flip
from .decoded import Decoded
from .inspection import Inspection, Samples, Size, Source, held_out, mixed
from .labels import class_numbers

STATISTICS_SAMPLES = 256
# Statistics are taken of at most this many numbers.
_STATISTICS_VALUES = 1 << 28
SMALL = 64
"""Images up to this size are augmented like CIFAR, larger ones like ImageNet."""
_PAD = 4
# What was drawn for the pictures of a raw batch, in its info.
_DRAWN = "drawn"
# The default model for small images needs this many pixels each way.
_RESNET = 9

Box = tuple[int, int, int, int]


class PictureTask:
    """Classify pictures; they are decoded on demand.

    Pictures of at most 64 pixels each way are decoded once and kept, where a quarter of the free memory holds
    a whole split: 8 bits as uint8, and on a GPU there, once all are decoded. Larger ones are decoded by
    `workers` processes whenever they are needed, ahead of the batches that are computed.

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
        known: Split = "train" if "train" in self._samples else next(iter(self._samples))
        images = _Images([source for source, _ in self._samples[known]], self._size, self._options, None)
        first = stacked([images.read(position, 0) for position in range(min(count, len(images.sources)))])
        mean, std = channel_statistics(first)
        self._decoded: dict[Split, Decoded] = {}
        if max(self._size) <= SMALL:
            for split, own in self._samples.items():
                if Decoded.fits(len(own), self._size):
                    self._decoded[split] = Decoded(len(own), self._size)
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
        return map(self.ready, self.raw_batches(split, feed))

    def raw_batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the same batches as they are kept or were decoded, with what was drawn for kept ones.

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
        batches = (
            self._anew(split, wanted, places, feed)
            if split not in self._decoded
            else self._kept(split, wanted, feed)
        )
        drawing = feed.augment and self._options.augment and split in self._decoded
        for index, at, x in zip(wanted, places, batches, strict=True):
            info = {_DRAWN: to_device(self._drawn(index, at, feed), feed.device)} if drawing else {}
            yield Batch(x, to_device(labels[index], feed.device), to_device(index, feed.device), info)

    def ready(self, batch: Batch) -> Batch:
        """Return a raw batch augmented and in float32."""
        x, drawn = batch.x, batch.info.get(_DRAWN)
        if drawn is not None:
            top, left, mirrored = drawn.unbind(1)
            x = random_flip(random_crop(x, _PAD, top, left), mirrored.bool())
        return Batch(unit_floats(x), batch.y, batch.index)

    def _anew(self, split: Split, wanted: list[Tensor], places: list[Tensor], feed: Feed) -> Iterator[Tensor]:
        """Yield the pictures of each batch, decoded and augmented by the workers."""
        augment = feed if feed.augment and self._options.augment else None
        rows = [
            list(zip(own.tolist(), at.tolist(), strict=True)) for own, at in zip(wanted, places, strict=True)
        ]
        for x in self._loaded(split, rows, feed, augment):
            yield x.to(feed.device, non_blocking=x.is_pinned())

    def _kept(self, split: Split, wanted: list[Tensor], feed: Feed) -> Iterator[Tensor]:
        """Yield the pictures of each batch, after the workers decoded those that are not known yet."""
        kept = self._decoded[split]
        missing = kept.missing(wanted)
        new = self._loaded(split, [[(position, 0) for position in own] for own in missing if own], feed, None)
        for own, absent in zip(wanted, missing, strict=True):
            if absent:
                kept.put(absent, next(new))
            yield kept.take(own, feed.device)

    def _drawn(self, positions: Tensor, places: Tensor, feed: Feed) -> Tensor:
        """Draw for each picture of a batch first row and column, and 1 to mirror it, int64 (N, 3)."""
        rng = torch.Generator()
        drawn = [
            shift(rng.manual_seed(augment_seed(feed, position, place)))
            for position, place in zip(positions.tolist(), places.tolist(), strict=True)
        ]
        return torch.tensor(drawn)

    def _loaded(
        self, split: Split, rows: list[list[tuple[int, int]]], feed: Feed, augment: Feed | None
    ) -> Iterator[Tensor]:
        """Yield the pictures of each batch of (position, place), uint8 or float32; pinned for a GPU.

        Raises:
            BrokenData: one cannot be decoded.
        """
        sources = [source for source, _ in self._samples[split]]
        loader: DataLoader[Tensor | BrokenData] = DataLoader(
            _Images(sources, self._size, self._options, augment),
            batch_size=None,
            sampler=rows,
            num_workers=min(self._options.workers, len(rows)),
            pin_memory=torch.device(feed.device).type == "cuda" and split not in self._decoded,
            # The loader draws a seed for its workers, by default from the global generator.
            generator=stream(feed.seed, "loader", feed.epoch),
        )
        for x in loader:
            if isinstance(x, BrokenData):
                raise x
            yield x

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

    def __init__(
        self, sources: list[Source], size: Size, options: PictureOptions, augment: Feed | None
    ) -> None:
        self.sources, self.size, self.options, self.augment = sources, size, options, augment

    def __getitem__(self, rows: list[tuple[int, int]]) -> Tensor | BrokenData:
        try:
            return stacked([self.read(position, place) for position, place in rows])
        except BrokenData as error:
            return error

    def read(self, position: int, place: int) -> Tensor:
        """Return the picture of a sample at a place of an epoch.

        Raises:
            BrokenData: it cannot be decoded.
        """
        rng = None
        if self.augment is not None:
            rng = torch.Generator().manual_seed(augment_seed(self.augment, position, place))
        scaled = self.options.decoding is not None
        return decode(self.sources[position], self.size, self.options.alpha, rng, scaled)


def augment_seed(feed: Feed, position: int, place: int) -> int:
    """Return the seed of a sample's augmentation; one that occurs again in an epoch has another."""
    again = () if feed.order is None else (place,)
    return derive(feed.seed, "augment", feed.epoch, position, *again)


def shift(rng: torch.Generator) -> tuple[int, int, int]:
    """Draw the augmentation of a small picture: the window's first row and column, and 1 to mirror it."""
    top, left = torch.randint(2 * _PAD + 1, (2, 1), generator=rng).flatten().tolist()
    return top, left, int(torch.randint(2, (1,), generator=rng))


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Stack images; where only some have 8 bits, all become float32 in [0, 1]."""
    same = len({image.dtype for image in images}) == 1
    return torch.stack([image if same else unit_floats(image) for image in images])


def decode(
    source: Source,
    size: Size,
    alpha: Alpha = "refuse",
    rng: torch.Generator | None = None,
    scaled: bool = False,
) -> Tensor:
    """Read an image as (3, *size), uint8 or float32 in [0, 1], augmented if a generator is given.

    Without augmentation, the largest centred part of these proportions is resized; an image that already has
    the target size is unchanged. Grey images get three equal channels.

    Args:
        source: the image.
        size: height and width.
        alpha: what shows through transparent pixels.
        rng: draws the augmentation.
        scaled: decode a JPEG no larger than this needs; see `read_picture`.

    Raises:
        BrokenData: the picture cannot be read; the message names it.
    """
    height, width = size
    area = rng if max(size) > SMALL else None
    box: Box = (0, 0, 0, 0)
    whole = width, height

    def least(wide: int, high: int) -> tuple[int, int]:
        nonlocal box, whole
        whole = wide, high
        box = centre_box(wide, high, size) if area is None else random_box(wide, high, area, size)
        left, upper, right, lower = box
        return -(-wide * width // (right - left)), -(-high * height // (lower - upper))

    opened = source if isinstance(source, str) else source.open()
    image = read_picture(opened, alpha, str(source), least if scaled else None)
    if not scaled:
        least(*image.size)
    across, down = image.width / whole[0], image.height / whole[1]
    right, lower = min(box[2] * across, image.width), min(box[3] * down, image.height)
    part = (box[0] * across, box[1] * down, right, lower)
    # Rounding may leave [0, 1] by a little.
    x = picture_tensor(image.resize((width, height), Image.Resampling.BILINEAR, box=part))
    x = (x.clamp_(0, 1) if x.is_floating_point() else x).expand(3, -1, -1)
    if rng is None:
        return x
    if area is None:
        top, left, mirrored = torch.tensor(shift(rng))[:, None]
        return random_flip(random_crop(x[None], _PAD, top, left), mirrored.bool())[0]
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
