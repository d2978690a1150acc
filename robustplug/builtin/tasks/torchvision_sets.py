"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, on disk in torchvision's layout."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

import torch
from filelock import FileLock
from torch import Tensor

from ...api import (
    ArrayTask,
    BrokenData,
    DataMissing,
    Split,
    Unreadable,
    check_size,
    is_file,
    open_file,
    stratified_split,
    stream,
)
from . import DownloadedOptions
from .augment import Augmentation
from .root import data_root

# Bytes that deflate can pack into one.
_DEFLATE = 1032
_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

Part = tuple[Tensor, Tensor]
Loaded = TypeVar("Loaded")


def mnist(options: DownloadedOptions) -> ArrayTask:
    """Build MNIST: images (1, 28, 28), 10 classes; augmentation shifts by up to 2 pixels.

    Raises:
        DataMissing, BrokenData: the files are missing or unreadable.
        ValueError: the splits request more samples than exist.
    """
    train, test = _load_idx("MNIST", options)
    return _task(train, test, options, _DIGITS, "small-cnn", Augmentation(pad=2))


def fashion_mnist(options: DownloadedOptions) -> ArrayTask:
    """Build Fashion-MNIST: images (1, 28, 28), 10 classes; shifts by up to 2 pixels, and mirroring.

    Raises:
        As `mnist`.
    """
    train, test = _load_idx("FashionMNIST", options)
    return _task(train, test, options, _CLOTHES, "small-cnn", Augmentation(pad=2, flip=True))


def cifar10(options: DownloadedOptions) -> ArrayTask:
    """Build CIFAR-10: images (3, 32, 32), 10 classes; shifts by up to 4 pixels, and mirroring.

    Raises:
        As `mnist`.
    """
    return _cifar("CIFAR10", options)


def cifar100(options: DownloadedOptions) -> ArrayTask:
    """Build CIFAR-100: images (3, 32, 32), 100 classes; shifts by up to 4 pixels, and mirroring.

    Raises:
        As `mnist`.
    """
    return _cifar("CIFAR100", options)


def svhn(options: DownloadedOptions) -> ArrayTask:
    """Build SVHN without its extra images: (3, 32, 32), 10 classes; shifts by up to 4 pixels.

    Raises:
        As `mnist`.
    """

    def read(root: Path) -> tuple[Part, Part]:
        from torchvision.datasets import SVHN

        sets = [SVHN(root, split=split, download=options.download) for split in ("train", "test")]
        train, test = [(torch.tensor(part.data), torch.tensor(part.labels)) for part in sets]
        return train, test

    train, test = _fetch("SVHN", options, read)
    return _task(train, test, options, _DIGITS, "preact-resnet18", Augmentation(pad=4))


def _cifar(name: str, options: DownloadedOptions) -> ArrayTask:
    def read(root: Path) -> tuple[Part, Part, list[str]]:
        import torchvision

        dataset = getattr(torchvision.datasets, name)
        sets = [dataset(root, train=train, download=options.download) for train in (True, False)]
        train, test = [
            (torch.tensor(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
            for part in sets
        ]
        return train, test, sets[0].classes

    train, test, names = _fetch(name, options, read)
    return _task(train, test, options, names, "preact-resnet18", Augmentation(pad=4, flip=True))


def _load_idx(name: str, options: DownloadedOptions) -> tuple[Part, Part]:
    # torchvision reads only unpacked files; the files are read here, packed or not.
    def read(root: Path) -> tuple[Part, Part]:
        raw = root / name / "raw"
        if options.download:
            import torchvision

            getattr(torchvision.datasets, name)(root, download=True)
        train, test = [
            (
                read_idx(_unpacked_or_not(raw / f"{part}-images-idx3-ubyte"))[:, None],
                read_idx(_unpacked_or_not(raw / f"{part}-labels-idx1-ubyte")).long(),
            )
            for part in ("train", "t10k")
        ]
        return train, test

    return _fetch(name, options, read)


def _unpacked_or_not(path: Path) -> Path:
    found = next((file for file in (path, path.with_name(f"{path.name}.gz")) if is_file(file)), None)
    if found is None:
        raise FileNotFoundError(f"neither {path} nor {path.name}.gz exists")
    return found


def read_idx(path: Path) -> Tensor:
    """Read an array of bytes in MNIST's idx format, plain or packed (.gz).

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values.

    Raises:
        BrokenData: the file is not in this format, or is incomplete.
    """
    try:
        with open_file(path) as file:
            packed = path.suffix == ".gz"
            limit = os.fstat(file.fileno()).st_size * (_DEFLATE if packed else 1)
            return _idx(cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file, limit)
    except Unreadable as error:
        raise BrokenData(f"{path} {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise BrokenData(f"{path} is not a complete idx file: {error}") from error


def _idx(file: IO[bytes], limit: int) -> Tensor:
    """Read an idx array, but no more than its header states and than the file can hold."""
    zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    size = math.prod(shape)
    if (zeros, kind) != (0, 8) or not dimensions or size > limit:
        raise Unreadable("is not a complete idx file of bytes")
    check_size(size)
    content = bytearray(file.read(size))
    if len(content) != size or file.read(1):
        raise Unreadable("is not a complete idx file of bytes")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _fetch(name: str, options: DownloadedOptions, read: Callable[[Path], Loaded]) -> Loaded:
    root = data_root(options.root)
    try:
        with contextlib.ExitStack() as stack:
            if options.download:
                # Several processes of one run must not write the same files.
                root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(root / ".robustplug-download.lock"))
            return read(root)
    except (RuntimeError, OSError) as error:
        # torchvision raises RuntimeError for missing and for damaged files.
        raise DataMissing(
            f"{name} was not found in the folder {root.absolute()} ({error}). Set the option task.root or "
            f"the variable ROBUSTPLUG_DATA to the folder that contains it, or set task.download = true"
        ) from error


def _task(
    train: Part,
    test: Part,
    options: DownloadedOptions,
    class_names: Sequence[str],
    default_model: str,
    augmentation: Augmentation,
) -> ArrayTask:
    x, y = train
    rng = stream(options.split_seed, "split")
    kept, validation = stratified_split(y, (options.validation,), rng)
    if options.train_samples is not None:
        if options.train_samples > len(kept):
            raise ValueError(
                f"train_samples = {options.train_samples} is too large: of {len(y)} training samples, "
                f"{options.validation} are for validation and {len(kept)} are left"
            )
        kept = kept[: options.train_samples]
    data: dict[Split, Part] = {
        "train": (x[kept], y[kept]),
        "validation": (x[validation], y[validation]),
        "test": test,
    }
    return ArrayTask(
        data,
        class_names=class_names,
        default_model=default_model,
        augmentation=augmentation if options.augment else Augmentation(),
    )
