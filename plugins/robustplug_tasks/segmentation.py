"""A class for each pixel: the task, its loss, and networks for it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import (
    BrokenData,
    DataMissing,
    InMemory,
    Measure,
    Quantity,
    Refused,
    Split,
    TaskInfo,
    Unreadable,
    View,
    check_zip,
    open_file,
)

from .options import SegmentationOptions, ShapesOptions
from .shapes import KINDS, drawn, split_images

IGNORED = 255
"""Label of pixels that do not count."""


@dataclass(frozen=True)
class SegmentationInfo(TaskInfo):
    """Describe a segmentation.

    Attributes:
        pixel_classes: number of classes of a pixel.
        pixel_names: their names; empty for none.
    """

    pixel_classes: int = 0
    pixel_names: tuple[str, ...] = ()


def pixel_losses(output: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of each pixel, (N, H, W); 0 for pixels that do not count.

    Args:
        output: logits (N, K, H, W).
        labels: classes int64 (N, H, W), or 255.
    """
    return F.cross_entropy(output.float(), labels, ignore_index=IGNORED, reduction="none")


def right_pixels(output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pixels are predicted correctly, and which count, bool (N, H, W) each.

    A pixel whose largest logit is not finite is not, nor one with a logit that is no number.

    Raises:
        Refused: the outputs are no logits of the pixels.
    """
    if output.ndim != 4 or output.shape[2:] != labels.shape[1:]:
        raise Refused(
            f"a segmentation needs logits (N, K, {', '.join(map(str, labels.shape[1:]))}), and the model "
            f"returns {tuple(output.shape)}"
        )
    counts = labels != IGNORED
    largest, places = output.max(1)
    return (places == labels) & counts & largest.isfinite(), counts


class SegmentationTask(InMemory):
    """Classify each pixel; an image is right if a large enough share of its pixels is.

    Args:
        data: images (N, C, H, W) of some splits, and their pixel classes int64 (N, H, W), 255 for pixels that
            do not count.
        classes: number of classes; None for one more than the largest label.
        names: names of the classes; empty for none.
        bound: share of the pixels of an image that must be right, in (0, 1).
        default_model: name of a model component.
        more: as for `InMemory`.

    Raises:
        ValueError: as `InMemory`, or labels have another shape or other values.
    """

    like = "shapes"
    score_name = "enough-pixels"

    def __init__(
        self,
        data: Mapping[Split, Any],
        *,
        classes: int | None = None,
        names: Sequence[str] = (),
        bound: float = 0.8,
        default_model: str = "small-fcn",
        **more: Any,
    ) -> None:
        self.bound, self.default_model = bound, default_model
        pairs = {split: (x, masks(y, np.shape(x), f"the {split} labels")) for split, (x, y) in data.items()}
        largest = max(int(torch.where(y == IGNORED, 0, y).max()) for _, y in pairs.values())
        self.classes = classes or len(names) or largest + 1
        if largest >= self.classes:
            raise ValueError(f"classes: there are {self.classes}, and a pixel has the class {largest}")
        if self.classes > IGNORED:
            raise ValueError(f"a pixel has the class {largest}: classes are from 0 to {IGNORED - 1}")
        if names and len(names) != self.classes:
            raise ValueError(f"class_names: {len(names)} names for {self.classes} classes")
        info = partial(SegmentationInfo, pixel_classes=self.classes, pixel_names=tuple(names))
        super().__init__(pairs, info=info, **more)

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the measures."""
        return (
            Quantity("mIoU", "higher", headline=True),
            Quantity("pixels", "higher", headline=True),
            Quantity(self.enough, "higher", share=True, headline=True),
        )

    @property
    def enough(self) -> str:
        """Return the name of the share of images that are right."""
        return f"% with {100 * self.bound:g} % of pixels"

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each image whether enough of its pixels are predicted correctly: bool (N,)."""
        return self.shares(view, output) >= self.bound

    def shares(self, view: View, output: Tensor) -> Tensor:
        """Return the share of the pixels of each image that is predicted correctly, (N,).

        Raises:
            Refused: as `right_pixels`, or the model has another number of classes.
        """
        right, counts = right_pixels(output, view.y)
        if output.shape[1] != self.classes:
            raise Refused(
                f"the model has {output.shape[1]} classes, and the task {self.classes}: set `classes`"
            )
        return right.flatten(1).sum(1) / counts.flatten(1).sum(1).clamp_min(1)

    def measure(self, view: View, output: Tensor) -> Mapping[str, Tensor]:
        """Return the share of right pixels, whether it is enough (0 or 100), and counts for the mIoU."""
        found = {"pixels": 100.0 * self.shares(view, output), self.enough: 100.0 * self.score(view, output)}
        counts = (view.y != IGNORED).flatten(1)
        cells = (
            torch.where(counts, view.y.flatten(1), 0) * self.classes + output.argmax(1).flatten(1)
        ).long()
        table = torch.zeros(len(view), self.classes**2, device=output.device)
        table.scatter_add_(1, cells, counts.float())
        return found | {
            f"_{at // self.classes} as {at % self.classes}": table[:, at] for at in range(table.shape[1])
        }

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        """Return the mean intersection over union of the classes, over the pixels of all images together."""
        from sklearn.metrics import jaccard_score

        names = [(a, b) for a in range(self.classes) for b in range(self.classes)]
        table = [float(values[f"_{a} as {b}"].nansum()) for a, b in names]
        count = int((~values["_0 as 0"].isnan()).sum())
        pairs = [(*pair, pixels) for pair, pixels in zip(names, table, strict=True) if pixels]
        if not pairs:
            return {}
        labels, found, pixels = zip(*pairs, strict=True)
        # Classes that neither occur nor are predicted do not count.
        score = jaccard_score(labels, found, average="macro", sample_weight=pixels, zero_division=0)
        return {"mIoU": Measure(100 * float(score), math.nan, math.nan, count)}

    def tell(self, view: View, output: Tensor) -> Sequence[str]:
        """Return the share of right pixels of each image."""
        return [f"{share:.1%} of the pixels right" for share in self.shares(view, output).tolist()]


def masks(y: Any, inputs: Sequence[int], name: str) -> Tensor:
    """Return pixel classes as int64 (N, H, W).

    Raises:
        ValueError: they have another shape than the images, or are no whole numbers of at least 0.
    """
    array = np.asarray(y)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} have the type {array.dtype}: give a class number for each pixel")
    # torch compares no unsigned numbers of several bytes.
    tensor = torch.as_tensor(array.astype(np.int64) if array.dtype.kind == "u" else array)
    tensor = tensor[:, 0] if tensor.ndim == 4 and tensor.shape[1] == 1 else tensor
    if tensor.ndim != 3 or tuple(tensor.shape[1:]) != tuple(inputs[-2:]) or len(tensor) != inputs[0]:
        raise ValueError(
            f"{name} have the shape {tuple(tensor.shape)}: give a class for each pixel of images "
            f"{tuple(inputs)}, "
            "(N, H, W)"
        )
    if not len(tensor):
        raise ValueError(f"{name} are empty")
    if (
        not bool((tensor == tensor.round() if tensor.is_floating_point() else tensor >= 0).all())
        or tensor.min() < 0
    ):
        raise ValueError(f"{name} are no class numbers from 0")
    return tensor.long()


def _numbers(archive: Mapping[str, Any], name: str) -> Any:
    """Return an array of a file.

    Raises:
        Unreadable: it is damaged, holds Python objects, or is no array.
    """
    try:
        found = archive[name]
    except ValueError as error:
        raise Unreadable.of(error, f"the array {name}") from error
    # An entry of an archive that is no array comes as bytes.
    if not isinstance(found, np.ndarray):
        raise Unreadable(f"cannot be read: {name} is no array")
    return found


def segmentation(options: SegmentationOptions) -> SegmentationTask:
    """Build the task of images and masks in a file; see SegmentationOptions.

    Raises:
        DataMissing, BrokenData: there is no such file, or it cannot be read.
        ValueError: its arrays do not fit.
    """
    file = Path(options.data).expanduser()
    try:
        with open_file(file):
            check_zip(file)
        with np.load(file, allow_pickle=False) as archive:
            lacking = [name for name in ("x", "y") if name not in archive]
            if lacking:
                raise ValueError(f"data: {file} has no array {lacking[0]!r}; it has {', '.join(archive)}")
            x, y = (_numbers(archive, name) for name in ("x", "y"))
            if x.dtype.kind not in "biuf":
                raise ValueError(f"data: the array x of {file} has the type {x.dtype}: give numbers")
    except FileNotFoundError:
        raise DataMissing(f"there is no file {file.absolute()}") from None
    except Unreadable as error:
        raise BrokenData(f"{file} {error}") from error
    except (OSError, EOFError, KeyError, NotImplementedError, BadZipFile, zlib.error) as error:
        raise BrokenData(f"{file} cannot be read: {error}") from error
    shares: dict[Split, float] = {"validation": options.validation, "test": options.test}
    images, labels = torch.as_tensor(x), masks(y, x.shape, "the labels")
    data = split_images(images, labels, shares, options.split_seed)
    return SegmentationTask(data, classes=options.classes, names=options.class_names, bound=options.bound)


def shapes(options: ShapesOptions) -> SegmentationTask:
    """Build the task of drawn shapes; see ShapesOptions.

    Raises:
        ValueError: no images are left for training.
    """
    x, y, _ = drawn(options.samples, options.size, options.noise, options.split_seed)
    shares: dict[Split, float] = {"validation": options.validation, "test": options.test}
    data = split_images(x, y, shares, options.split_seed)
    return SegmentationTask(data, names=("ground", *KINDS), bound=options.bound)
