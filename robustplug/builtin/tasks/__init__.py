"""The built-in tasks: classification of data from scikit-learn, torchvision, Hugging Face, or your own files.

Importing this module does not import torch, torchvision or scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ...api import Bounds, Component, Count, Finite, FractionText, Real, RunFolder, Use

Share = Annotated[float, Bounds(gt=0, lt=1), Finite(), FractionText()]
"""A fraction above 0 and below 1."""

HeldOut = Annotated[float, Bounds(ge=0, lt=1), Finite(), FractionText()]
"""The fraction of the training samples that a split takes; 0 leaves it empty, as for extra data."""

Alpha = Literal["refuse", "white", "black"]
"""What shows through transparent pixels."""

Side = Real | tuple[Real, ...]
"""A bound: a number, or one for each channel or feature."""


@dataclass(frozen=True)
class DigitsOptions:
    """Options of the task `digits`.

    Attributes:
        validation, test: number of held-out samples, stratified by class; the rest of the 1,797 is for
            training.
        augment: whether to shift training images by at most one pixel.
        split_seed: seed of the split, independent of the run's seed.
        classes: digits to keep, which become the classes 0, 1, … in this order; None for all. Each sample
            stays in the split that it has with all digits.
    """

    validation: Count = 180
    test: Count = 360
    augment: bool = False
    split_seed: int = 0
    classes: tuple[Annotated[int, Bounds(ge=0, le=9)], ...] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None and (
            len(set(self.classes)) != len(self.classes) or len(self.classes) < 2
        ):
            raise ValueError(f"classes must be at least two different digits, not {list(self.classes)}")


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
class PictureOptions:
    """Options of the tasks that decode pictures on demand.

    Attributes:
        size: height and width of the resized images; None to take them as they are, where all agree.
        upsample: whether images smaller than `size` may be enlarged.
        alpha: what shows through transparent pixels: "white" or "black"; "refuse" allows none.
        broken: "error" to stop at pictures that cannot be read, "skip" to leave them out and count them.
        augment: whether to crop and mirror training images; up to size 64 with shifts of at most 4 pixels,
            above with crops of random area and aspect ratio.
        workers: number of extra processes that decode images; 0 to decode in the main process.
        decoding: "scaled" decodes JPEG files at 1/2, 1/4 or 1/8 of their size where that is enough for
            `size`: faster, with slightly other pixels; None for their full size.
        split_seed: seed of the split, independent of the run's seed.
    """

    size: Annotated[int, Bounds(ge=1, le=8192)] | None = None
    upsample: bool = False
    alpha: Alpha = "refuse"
    broken: Literal["error", "skip"] = "error"
    augment: bool = True
    workers: Annotated[int, Bounds(ge=0, le=256)] = 2
    # None, not a value: recipes of earlier versions, which lack the key, keep their hashes.
    decoding: Literal["scaled"] | None = None
    split_seed: int = 0


@dataclass(frozen=True)
class ImageFolderOptions(PictureOptions):
    """Options of the task `image-folder`.

    Attributes:
        root: folder that contains train/ and optionally val/ (or validation/) and test/, each with one
            folder per class; or a folder of class folders. By default the variable ROBUSTPLUG_DATA,
            else "data".
        validation: fraction of the training images held out for validation if no folder contains them; 0
            for none.
        test: fraction held out for testing, likewise; without test/, a folder val/ is the test split.
    """

    root: str | None = None
    validation: HeldOut = 0.1
    test: HeldOut = 0.2


@dataclass(frozen=True)
class WebDatasetOptions(PictureOptions):
    """Options of the task `webdataset`. Give at least `train` or `test`.

    Attributes:
        train: the .tar files with the training samples: a path, also with "{000..009}" or "*".
        validation: .tar files with validation samples, or the fraction of the training samples held out.
        test: .tar files with test samples, or the fraction held out.
        label: ending of the entries with the labels: class numbers, or class names.
    """

    train: str | None = None
    validation: HeldOut | str = 0.1
    test: HeldOut | str = 0.2
    label: str = "cls"


@dataclass(frozen=True)
class HuggingFaceOptions(PictureOptions):
    """Options of the task `huggingface`.

    Attributes:
        name: name of a data set of the Hugging Face Hub, or a folder: one written by `save_to_disk`, or one
            that `load_dataset` reads; from Python also a Dataset, or a DatasetDict.
        config: configuration of the data set, if it has several.
        revision: commit or tag of the data set on the Hub.
        columns: names of the input and the label column; by default they are recognised by their names.
        train: name of the training split.
        validation: name of the validation split, or the fraction of the training samples held out; None for
            the data set's own, else 0.1.
        test: name of the test split, or the fraction held out; None for the data set's own, else 0.2.
        bounds: lowest and highest value of inputs that are no pictures, numbers or one for each feature;
            by default 0 and 1.
    """

    name: str = field(kw_only=True)
    config: str | None = None
    revision: str | None = None
    columns: tuple[str, str] | None = None
    train: str = "train"
    validation: HeldOut | str | None = None
    test: HeldOut | str | None = None
    bounds: tuple[Side, Side] | None = None


@dataclass(frozen=True)
class ArraysOptions:
    """Options of the task `arrays`. Give `path`, `train` or `test`.

    Attributes:
        path: file with all samples: .npz, .npy, .safetensors, .parquet, .csv or .tsv, or a folder of .npy
            files, x.npy and y.npy. Arrays named x_train, y_train, x_test and so on are splits of their own.
        train: file with the training samples, instead of `path`.
        validation: file with validation samples, or the fraction of the training samples held out.
        test: file with test samples, or the fraction held out.
        label: name of the label array or column, or its number, from 0, -1 for the last; by default it is
            recognised by its name.
        features: names of the feature columns of a table, by default all but the label; or the name of the
            one input array.
        bounds: lowest and highest value of the inputs, numbers or one for each channel or feature; by
            default 0 and 1, uint8 being divided by 255. "measured" for the extremes of each feature of a
            table.
        classes: number of classes, where labels are class numbers and the data may lack some; by default
            one more than the largest label. Labels that are names, or numbers that do not start at 0, are
            sorted.
        split_seed: seed of the split, independent of the run's seed.
    """

    path: str | None = None
    train: str | None = None
    validation: HeldOut | str = 0.1
    test: HeldOut | str = 0.2
    label: int | str | None = None
    features: tuple[str, ...] = ()
    bounds: tuple[Side, Side] | Literal["measured"] | None = None
    classes: Annotated[int, Bounds(ge=1, le=1_000_000)] | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.path is not None and self.train is not None:
            raise ValueError("train and path both name the training samples: give one of them")


_SETS = "robustplug.builtin.tasks.torchvision_sets"


@dataclass(frozen=True)
class MixOptions:
    """Options of the task `mix`.

    Attributes:
        base: task whose samples are trained on, validated on and tested on.
        extra: task whose training samples are added to each training batch, such as generated images.
        share: share of extra samples in each batch.
        teacher: folder of a finished run whose model's predictions are the labels of the extra samples, in
            the place of those of the task, which may be any; only training needs it.
        score_extra: whether extra samples count in the accuracies of training, too.
    """

    base: Annotated[Use, "task"]
    extra: Annotated[Use, "task"]
    share: Share = 0.5
    teacher: RunFolder | None = None
    score_extra: bool = False


TASKS: tuple[Component, ...] = (
    Component(
        "mix",
        "robustplug.builtin.tasks.mix:MixedTask",
        MixOptions,
        "training batches with a fixed share of samples of another task, for extra data",
        "after Carmon et al. 2019, Unlabeled data improves adversarial robustness, arXiv:1905.13736",
        trial={"base": {"use": "digits"}, "extra": {"use": "digits", "split_seed": 1}, "share": 0.3},
    ),
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
    Component(
        "arrays",
        "robustplug.builtin.tasks.arrays.task:arrays",
        ArraysOptions,
        "images or tables in .npz, .npy, .safetensors, .parquet or .csv files",
    ),
    Component(
        "huggingface",
        "robustplug.builtin.tasks.huggingface:huggingface",
        HuggingFaceOptions,
        "a data set of the Hugging Face Hub, or a folder that save_to_disk wrote",
        trial={"name": "./saved-data-set"},
    ),
    Component(
        "webdataset",
        "robustplug.builtin.tasks.webdataset:webdataset",
        WebDatasetOptions,
        "images and labels in .tar files (shards)",
    ),
)
