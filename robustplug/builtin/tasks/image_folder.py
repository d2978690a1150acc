"""Images on disk, in one folder per class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...api import (
    Batch,
    BrokenData,
    DataMissing,
    Feed,
    Split,
    TaskInfo,
    View,
    channel_statistics,
    classification_score,
    index_batches,
    stratified_split,
    stream,
    unit_floats,
)
from . import ImageFolderOptions
from .augment import random_crop, random_flip
from .root import data_root

STATISTICS_SAMPLES = 256
SMALL = 64
"""Images up to this size are augmented like CIFAR, larger ones like ImageNet."""
_PAD = 4

Box = tuple[int, int, int, int]
Samples = list[tuple[str, int]]


class ImageFolderTask:
    """Classify images in class folders; files are decoded on demand.

    Inputs are float32 (N, 3, size, size) in [0, 1], regardless of the files' format. Class names are the
    sorted names of the training class folders. The splits:

    - folders train/, val/ (or validation/) and test/: they are used as they are;
    - train/ and val/ only, the layout of ImageNet: val/ is the test split, because papers report it as
      such, and validation is held out from train/;
    - otherwise a split without a folder is held out, stratified, from train/ or from the flat tree.

    The stored order of each split is random but fixed and mixes the classes, so that its first samples
    are representative. `info.mean` and `info.std` are those of the first 256 training images in that order.
    """

    def __init__(self, options: ImageFolderOptions) -> None:
        """Find the images and read the first of them.

        Raises:
            DataMissing: no class folders with images exist.
            BrokenData: one of the first training images cannot be decoded.
            ValueError: a split has classes that the training split lacks, or there are too few images.
        """
        class_names, self._samples = find_splits(options)
        self._options = options
        self._labels = {
            split: torch.tensor([label for _, label in samples], dtype=torch.int64)
            for split, samples in self._samples.items()
        }
        first = [path for path, _ in self._samples["train"][:STATISTICS_SAMPLES]]
        mean, std = channel_statistics(torch.stack([decode(path, options.size) for path in first]))
        self.info = TaskInfo(
            sizes={split: len(samples) for split, samples in self._samples.items()},
            shape=(3, options.size, options.size),
            classes=len(class_names),
            class_names=class_names,
            mean=mean,
            std=std,
        )
        self.default_model = "preact-resnet18" if options.size <= SMALL else "torchvision"

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`.

        Raises:
            BrokenData: an image cannot be decoded.
        """
        samples, labels = self._samples[split], self._labels[split]
        wanted = list(index_batches(len(samples), feed))
        images = _Images([path for path, _ in samples], self._options, feed)
        pinned = torch.device(feed.device).type == "cuda"
        loader: DataLoader[Tensor | BrokenData] = DataLoader(
            images,
            batch_size=None,
            sampler=[positions.tolist() for positions in wanted],
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


class _Images(Dataset[Tensor | BrokenData]):
    """Decode the images of a batch.

    An error is returned, not raised: torch would wrap a worker's error in the text of its traceback.
    """

    def __init__(self, paths: list[str], options: ImageFolderOptions, feed: Feed) -> None:
        self.paths, self.size, self.feed = paths, options.size, feed
        self.augment = feed.augment and options.augment

    def __getitem__(self, positions: list[int]) -> Tensor | BrokenData:
        try:
            return torch.stack([self._read(position) for position in positions])
        except BrokenData as error:
            return error

    def _read(self, position: int) -> Tensor:
        if not self.augment:
            return decode(self.paths[position], self.size)
        rng = stream(self.feed.seed, "augment", self.feed.epoch, position)
        return decode(self.paths[position], self.size, rng)


def decode(path: str, size: int, rng: torch.Generator | None = None) -> Tensor:
    """Read an image as uint8 (3, size, size), augmented if a generator is given.

    Without augmentation the largest centred square is resized; an image that already has the target size
    is unchanged.

    Raises:
        BrokenData: the file cannot be decoded; the message names it.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others.
        raise BrokenData(f"the image {path} cannot be read: {error}") from error
    random_area = rng is not None and size > SMALL
    box = random_box(*image.size, rng) if rng is not None and random_area else centre_box(*image.size)
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    x = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    x = x.reshape(size, size, 3).permute(2, 0, 1).contiguous()
    if rng is None:
        return x
    if not random_area:
        top, left = torch.randint(2 * _PAD + 1, (2, 1), generator=rng)
        x = random_crop(x[None], _PAD, top, left)[0]
    return random_flip(x[None], torch.randint(2, (1,), generator=rng).bool())[0]


def centre_box(width: int, height: int) -> Box:
    """Return the largest centred square of an image: left, upper, right, lower."""
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def random_box(width: int, height: int, rng: torch.Generator) -> Box:
    """Draw a box of 8 to 100 % of the area with aspect ratio 3/4 to 4/3 (Szegedy et al. 2015).

    The first of ten drawn sizes that fits is placed at random; if none fits, the centred square is
    returned. This is torchvision's RandomResizedCrop with an explicit generator.
    """
    for area, log_ratio in torch.rand(10, 2, generator=rng, dtype=torch.float64).tolist():
        pixels = width * height * (0.08 + 0.92 * area)
        ratio = math.exp((2 * log_ratio - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(torch.randint(width - w + 1, (), generator=rng))
            upper = int(torch.randint(height - h + 1, (), generator=rng))
            return left, upper, left + w, upper + h
    return centre_box(width, height)


def find_splits(options: ImageFolderOptions) -> tuple[tuple[str, ...], dict[Split, Samples]]:
    """Find the images of each split, and the class names; see ImageFolderTask for the layouts.

    Raises:
        As ImageFolderTask.
    """
    root = data_root(options.root)
    split_by_folder = _has_folders(root / "train")
    others = [name for name in ("val", "validation", "test") if _has_folders(root / name)]
    if others and not split_by_folder:
        raise DataMissing(f"{root.absolute()} has the folder {others[0]}, but no class folders in train")
    classes, train = _scan(root / "train" if split_by_folder else root)
    found = {name: _relabelled(root / name, classes) for name in others}
    validation, test = found.get("val", found.get("validation")), found.get("test")
    if test is None:
        validation, test = None, validation
    rng = stream(options.split_seed, "split")
    held_out = [
        max(1, round(share * len(train))) if part is None else 0
        for share, part in ((options.validation, validation), (options.test, test))
    ]
    labels = torch.tensor([label for _, label in train])
    parts = [[train[i] for i in part.tolist()] for part in stratified_split(labels, held_out, rng)]
    return classes, {
        "train": parts[0],
        "validation": parts[1] if validation is None else _mixed(validation, options.split_seed),
        "test": parts[2] if test is None else _mixed(test, options.split_seed),
    }


def _mixed(samples: Samples, seed: int) -> Samples:
    labels = torch.tensor([label for _, label in samples])
    (order,) = stratified_split(labels, (), stream(seed, "order"))
    return [samples[i] for i in order.tolist()]


def _has_folders(folder: Path) -> bool:
    """Return whether a folder contains class folders, unlike a class folder of the same name ("train")."""
    return folder.is_dir() and any(child.is_dir() for child in folder.iterdir())


def _scan(folder: Path) -> tuple[tuple[str, ...], Samples]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(folder)
    except OSError as error:
        raise DataMissing(
            f"no class folders with images found in the folder {folder.absolute()} ({error}). Set the option "
            "task.root or the variable ROBUSTPLUG_DATA to a folder with one folder per class, or to a folder "
            "whose subfolder train has one per class; this task has no task.download"
        ) from error
    return tuple(found.classes), found.samples


def _relabelled(folder: Path, classes: tuple[str, ...]) -> Samples:
    names, samples = _scan(folder)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(f"{folder} has classes that the training images lack: {', '.join(unknown)}")
    return [(path, classes.index(names[label])) for path, label in samples]
