"""Measure a task's data: ranges, classes and samples; and read all of it to find what is wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.nn import functional

from ...core.task import LabelledTask, notes_of
from ...core.types import Batch, Feed, Split, TaskInfo
from ...errors import BrokenData
from .arrays import broadcast

if TYPE_CHECKING:
    from ...core.task import Task

# Samples of each split whose values are measured, in stored order.
MEASURED = 256
_BATCH = 64
# Rows and columns of a contact sheet, and the longest side of its images in pixels.
_ROWS, _COLUMNS, _PIXELS = 12, 8, 160


@dataclass(frozen=True)
class SplitFacts:
    """Describe a split.

    Attributes:
        size: number of samples.
        measured: number of samples that were read.
        low, high: lowest and highest value of their inputs; None where inputs have no fixed shape.
        counts: number of samples of each class; empty where there are none.
        counted: number of samples whose labels were counted; all, where the task lists its labels.
    """

    size: int
    measured: int
    low: float | None
    high: float | None
    counts: Mapping[int, int]
    counted: int


@dataclass(frozen=True)
class Description:
    """Describe the data of a task.

    Attributes:
        info: the task's own description.
        splits: facts about each split.
        samples: some images (C, H, W) in [0, 1] by class name, each with its place; empty for other inputs.
        notes: what the task says about its data.
    """

    info: TaskInfo
    splits: Mapping[Split, SplitFacts]
    samples: Mapping[str, Sequence[tuple[str, Any]]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Faults:
    """List what is wrong with data.

    Attributes:
        broken: a message for each sample that cannot be read.
        twins: names of equal samples in two splits; None where inputs have no fixed shape to compare.
        lonely: names of the classes with one sample.
    """

    broken: Sequence[str] = ()
    twins: Sequence[tuple[str, str]] | None = ()
    lonely: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.broken or self.twins or self.lonely)


def describe(task: Task, measured: int = MEASURED) -> Description:
    """Measure the first samples of each split, and count the classes.

    Raises:
        BrokenData: one of these samples cannot be read.
    """
    splits: dict[Split, SplitFacts] = {}
    shown: dict[int, list[tuple[str, Any]]] = {}
    for number, split in enumerate(task.info.sizes):
        lows, highs, counts, read = [], [], Counter[int](), 0
        for batch in task.batches(split, Feed(batch_size=_BATCH, samples=measured)):
            read += len(batch)
            counts.update(_classes(batch, task.info))
            if task.info.shape is not None:
                lows.append(float(batch.x.min()))
                highs.append(float(batch.x.max()))
            if not number:
                _show(batch, task.info, shown)  # of the first split
        if isinstance(task, LabelledTask) and counts:
            counts = Counter(task.labels(split).tolist())
        splits[split] = SplitFacts(
            size=task.info.sizes[split],
            measured=read,
            low=min(lows, default=None),
            high=max(highs, default=None),
            counts=dict(sorted(counts.items())),
            counted=sum(counts.values()),
        )
    samples = {class_name(task.info, label): shown[label] for label in sorted(shown)[:_ROWS]}
    return Description(task.info, splits, samples, tuple(notes_of(task)))


def find_faults(task: Task) -> Faults:
    """Read every sample once: which are broken, stand in two splits, or are alone in their class.

    Samples are equal if their inputs are, bit for bit, as the task serves them without augmentation.
    """
    broken: list[str] = list(getattr(task, "broken", ()))
    twins: list[tuple[str, str]] = []
    counts: Counter[int] = Counter()
    seen: dict[bytes, tuple[Split, int]] = {}
    for split in task.info.sizes:
        for found in _read_all(task, split):
            if isinstance(found, BrokenData):
                broken.append(str(found))
                continue
            counts.update(_classes(found, task.info))
            if task.info.shape is None:
                continue
            for x, index in zip(found.x, found.index.tolist(), strict=True):
                digest = hashlib.sha256(x.contiguous().numpy().tobytes()).digest()
                other, place = seen.setdefault(digest, (split, index))
                if other != split:
                    twins.append((sample_name(task, other, place), sample_name(task, split, index)))
    lonely = [class_name(task.info, label) for label, count in sorted(counts.items()) if count == 1]
    return Faults(broken, None if task.info.shape is None else twins, lonely)


def _read_all(task: Task, split: Split) -> Iterator[Batch | BrokenData]:
    """Yield all samples in batches; the samples of a batch that cannot be read alone, or their errors."""
    size, done = task.info.sizes[split], 0
    while done < size:
        try:
            for batch in task.batches(split, Feed(batch_size=_BATCH, skip=done // _BATCH)):
                done += len(batch)
                yield batch
        except BrokenData:
            until = min(size, done + _BATCH)
            for at in range(done, until):
                try:
                    yield from task.batches(split, Feed(batch_size=1, skip=at, samples=at + 1))
                except BrokenData as error:
                    yield error
            done = until


def sample_name(task: Task, split: Split, index: int) -> str:
    """Return the name of a sample: its file where the task knows it, with split and index."""
    known = getattr(task, "sample_name", None)
    return f"{split} {index} ({known(split, index)})" if callable(known) else f"{split} {index}"


def class_name(info: TaskInfo, label: int) -> str:
    """Return the name of a class, or else its number."""
    return info.class_names[label] if label < len(info.class_names) else str(label)


def _classes(batch: Batch, info: TaskInfo) -> list[int]:
    if info.classes is None:
        return []
    labels: list[int] = (batch.y.argmax(1) if batch.y.ndim == 2 else batch.y).tolist()
    return labels


def _show(batch: Batch, info: TaskInfo, shown: dict[int, list[tuple[str, Any]]]) -> None:
    """Add the images of a batch to the contact sheet."""
    if info.shape is None or len(info.shape) != 3:
        return
    low, high = (broadcast(side, 4) for side in info.bounds)
    for row, label in enumerate(_classes(batch, info)):
        own = shown.setdefault(label, [])
        if len(own) == _COLUMNS:
            continue
        image = ((batch.x[row : row + 1] - low) / (high - low)).clamp(0, 1)
        factor = _PIXELS / max(image.shape[2:])
        if factor < 1:
            image = functional.interpolate(image, scale_factor=factor, mode="area")
        # Other numbers of channels have no colours of their own: the first three are shown, or the first.
        image = image[0, : 3 if image.shape[1] >= 3 else 1]
        own.append((str(int(batch.index[row])), image.numpy()))
