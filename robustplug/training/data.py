"""The batches of training: those of the task, in the order and with the changes that the recipe states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.batches import balanced_order, epoch_batches, raw_task
from ..core.random import derive
from ..core.task import LabelledTask
from ..core.types import Batch, Feed
from ..recipe.errors import Problem, RecipeError
from ..subjects.assemble import build_part, endless

if TYPE_CHECKING:
    from ..core.protocols import Augmentation
    from ..core.task import Task
    from ..devices.processes import Processes
    from ..subjects.assemble import Parts


class TrainingData:
    """Serve the training batches of a recipe to one process.

    Args:
        parts: the recipe and its task.
        processes: the processes that share each batch.

    Raises:
        RecipeError: the task does not support the recipe's sampling, class weights or augmentation.
    """

    def __init__(self, parts: Parts, processes: Processes) -> None:
        self.recipe, self.task, self.processes = parts.recipe, parts.task, processes
        self._first: Batch | None = None
        train, info = parts.recipe.train, parts.task.info
        why = endless(parts.method.cost, train.epochs * self.size)
        if why:
            raise _refused("train.epochs", f"= {train.epochs} {why}: lower it, or the steps of the attack")
        self.augmentations: list[Augmentation] = [
            build_part(use, "augmentation", f"train.augment.{number}", info=info)
            for number, use in enumerate(train.augment or ())
        ]
        self.labels: Tensor | None = None
        if train.sampling == "balanced":
            self.labels = self._labels("train.sampling")
            self._check_order()
        self.class_weights: Tensor | None = None
        if train.class_weights is not None:
            self.class_weights = self._weights(train.class_weights).to(processes.device)

    @property
    def size(self) -> int:
        """Return the number of rows of an epoch."""
        return self.task.info.sizes["train"]

    @property
    def count(self) -> int:
        """Return the number of global batches of an epoch."""
        return self.count_with(self.processes.world)

    def count_with(self, world: int) -> int:
        """Return the number of global batches of an epoch with another number of processes."""
        return epoch_batches(self.size, replace(self.feed(0, 0), world=world))

    def feed(self, epoch: int, skip: int) -> Feed:
        """Return the feed of an epoch, without its first batches."""
        seed, labels = self.recipe.seed, self.labels
        return Feed(
            epoch=epoch,
            batch_size=self.recipe.train.batch_size,
            seed=seed,
            shuffle=True,
            augment=True,
            rank=self.processes.rank,
            world=self.processes.world,
            skip=skip,
            device=str(self.processes.device),
            order=None
            if labels is None
            else balanced_order(labels, self.task.info.classes or 0, seed, epoch),
        )

    @property
    def ready(self) -> Callable[[Batch], Batch] | None:
        """Return what augments and converts raw batches within an update; None where only the task does."""
        task = raw_task(self.task)
        return None if task is None or self.augmentations else task.ready

    def batches(self, epoch: int, skip: int = 0, raw: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch, without its first ones.

        The augmentation of a row depends on the seed of the run, the epoch, the batch and the row's place in
        the global batch.

        Args:
            epoch: number of the epoch.
            skip: number of batches to leave out.
            raw: whether `ready` is still to be called on them.
        """
        self._first = None
        task = raw_task(self.task) if raw else None
        if task is None:
            yield from self._served(epoch, skip)
        else:
            yield from task.raw_batches("train", self.feed(epoch, skip))

    def first(self) -> Batch:
        """Return the first batch, which is kept until an epoch starts: decoding it may take long."""
        if self._first is None:
            self._first = next(self._served(0, 0))
        return self._first

    def _served(self, epoch: int, skip: int) -> Iterator[Batch]:
        feed = self.feed(epoch, skip)
        for number, batch in enumerate(self.task.batches("train", feed), skip):
            places = range(feed.rank, feed.rank + len(batch) * feed.world, feed.world)
            yield self._augmented(batch, epoch, number, places)

    def _augmented(self, batch: Batch, epoch: int, number: int, places: Sequence[int]) -> Batch:
        x = batch.x
        for which, augmentation in enumerate(self.augmentations):
            path = ("train augment", which, epoch, number)
            x = augmentation(x, [derive(self.recipe.seed, *path, place) for place in places])
        return batch if x is batch.x else replace(batch, x=x)

    def _labels(self, key: str) -> Tensor:
        info, name = self.task.info, self.recipe.task.name
        if info.classes is None:
            raise _refused(key, f'needs classes, and the task "{name}" has none: leave it out')
        if info.pool is not None:
            raise _refused(key, f'the task "{name}" chooses the samples of an epoch itself: leave it out')
        labels = training_labels(self.task)
        missing = torch.bincount(labels, minlength=info.classes) == 0
        if bool(missing.any()):
            number = int(missing.nonzero()[0])
            raise _refused(key, f"class {number} has no training samples, so classes cannot be balanced")
        return labels

    def _weights(self, given: str | Sequence[float]) -> Tensor:
        key, classes = "train.class_weights", self.task.info.classes
        if not isinstance(given, str):
            if classes is None:
                self._labels(key)
            if len(given) != classes or not any(given):
                why = f"must hold {classes} numbers, one for each class, at least one above 0"
                raise _refused(key, f"{why}, not {list(given)}")
            return torch.tensor(given, dtype=torch.float32)
        if self.labels is not None:
            why = 'would balance the classes twice, since train.sampling = "balanced": leave one of them out'
            raise _refused(key, why)
        labels = self._labels(key)
        counts = torch.bincount(labels, minlength=classes or 0)
        return (len(labels) / (len(counts) * counts.double())).float()

    def _check_order(self) -> None:
        feed = replace(self.feed(0, 0), rank=0, world=1, device="cpu")
        found = next(iter(self.task.batches("train", feed))).index
        assert feed.order is not None
        if not torch.equal(found, feed.order[: len(found)]):
            name = self.recipe.task.name
            why = f'the task "{name}" does not follow a given order of samples (Feed.order): leave it out'
            raise _refused("train.sampling", why)


def training_labels(task: Task) -> Tensor:
    """Return the class of each training sample, int64 (n,); a task that cannot tell is read once."""
    if isinstance(task, LabelledTask):
        return task.labels("train")
    labels = torch.zeros(task.info.sizes["train"], dtype=torch.int64)
    for batch in task.batches("train", Feed(batch_size=256)):
        labels[batch.index] = batch.y if batch.y.dim() == 1 else batch.y.argmax(1)
    return labels


def _refused(key: str, why: str) -> RecipeError:
    return RecipeError([Problem(key, why, None, None)], "recipe")
