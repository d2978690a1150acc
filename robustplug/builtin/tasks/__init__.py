"""The built-in tasks: image classification from scikit-learn, torchvision's data sets, or folders.

Importing this module does not import torch, torchvision or scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...api import Bounds, Component, Count, Finite, FractionText, Natural

Share = Annotated[float, Bounds(gt=0, lt=1), Finite(), FractionText()]
"""A fraction above 0 and below 1."""


@dataclass(frozen=True)
class DigitsOptions:
    """Options of the task `digits`.

    Attributes:
        validation, test: number of held-out samples, stratified by class; the rest of the 1,797 is for
            training.
        augment: whether to shift training images by at most one pixel.
        split_seed: seed of the split, independent of the run's seed.
    """

    validation: Count = 180
    test: Count = 360
    augment: bool = False
    split_seed: int = 0


@dataclass(frozen=True)
class DownloadedOptions:
    """Options of the downloadable data sets.

    Attributes:
        root: data folder; by default the variable ROBUSTPLUG_DATA, else "data".
        download: whether to download missing files into `root`.
        validation: number of training samples held out for validation, stratified by class.
        train_samples: number of the remaining training samples to use, stratified; None for all.
        augment: whether to shift (and mirror, if that keeps the label) training images.
        split_seed: seed of the split, independent of the run's seed.
    """

    root: str | None = None
    download: bool = False
    validation: Count = 5000
    train_samples: Count | None = None
    augment: bool = False
    split_seed: int = 0


@dataclass(frozen=True)
class AugmentedOptions(DownloadedOptions):
    """Options of the downloadable data sets, with augmentation on by default."""

    augment: bool = True


@dataclass(frozen=True)
class ImageFolderOptions:
    """Options of the task `image-folder`.

    Attributes:
        root: folder that contains train/ and optionally val/ (or validation/) and test/, each with one
            folder per class; or a folder of class folders. By default the variable ROBUSTPLUG_DATA,
            else "data".
        size: height and width of the resized images.
        validation: fraction of the training images held out for validation if no folder contains them.
        test: fraction held out for testing, likewise; without test/, a folder val/ is the test split.
        augment: whether to crop and mirror training images; up to size 64 with shifts of at most 4 pixels,
            above with crops of random area and aspect ratio.
        workers: number of extra processes that decode images; 0 to decode in the main process.
        split_seed: seed of the split, independent of the run's seed.
    """

    root: str | None = None
    size: Count = 224
    validation: Share = 0.1
    test: Share = 0.2
    augment: bool = True
    workers: Natural = 2
    split_seed: int = 0


_SETS = "robustplug.builtin.tasks.torchvision_sets"

TASKS: tuple[Component, ...] = (
    Component(
        "digits",
        "robustplug.builtin.tasks.digits:digits",
        DigitsOptions,
        "8x8 grey digits bundled with scikit-learn: 10 classes, 1,797 images, nothing to download",
    ),
    Component(
        "mnist",
        f"{_SETS}:mnist",
        DownloadedOptions,
        "28x28 grey handwritten digits: 10 classes, 60,000 + 10,000 images",
        "LeCun et al. 1998, Gradient-based learning applied to document recognition",
    ),
    Component(
        "fashion-mnist",
        f"{_SETS}:fashion_mnist",
        DownloadedOptions,
        "28x28 grey images of clothes: 10 classes, 60,000 + 10,000 images",
        "Xiao et al. 2017, Fashion-MNIST",
    ),
    Component(
        "cifar10",
        f"{_SETS}:cifar10",
        AugmentedOptions,
        "32x32 colour images of animals and vehicles: 10 classes, 50,000 + 10,000 images",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
    ),
    Component(
        "cifar100",
        f"{_SETS}:cifar100",
        AugmentedOptions,
        "32x32 colour images of objects: 100 classes, 50,000 + 10,000 images",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
    ),
    Component(
        "svhn",
        f"{_SETS}:svhn",
        AugmentedOptions,
        "32x32 colour house numbers: 10 classes, 73,257 + 26,032 images",
        "Netzer et al. 2011, Reading digits in natural images with unsupervised feature learning",
    ),
    Component(
        "image-folder",
        "robustplug.builtin.tasks.image_folder:ImageFolderTask",
        ImageFolderOptions,
        "any images on disk in one folder per class, with or without folders for the splits",
    ),
)
