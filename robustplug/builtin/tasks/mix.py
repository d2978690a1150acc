"""A task whose training batches are mixed from two others, for extra data such as generated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...api import (
    Batch,
    Feed,
    Refused,
    Split,
    Task,
    View,
    as_rows,
    derive,
    endless_order,
    epoch_batches,
    open_model,
    raw_task,
    take,
)
from . import MixOptions

# Samples that a teacher labels at once.
_TOGETHER = 512


class MixedTask:
    """Serve training batches with a fixed share of extra samples; all other splits are those of the base.

    An epoch has n / (1 − share) rows for n base samples. Both parts come in endless random orders, each
    sample once before any comes again. The indices of extra samples follow those of the base. Extra samples
    do not count in the accuracies of training, unless an option says so. Without shuffling, the training
    split is that of the base.

    Args:
        options: see MixOptions.
        base, extra: classification tasks with the same shape and bounds, and without a teacher, classes.

    Raises:
        ValueError: the tasks differ in shape, classes or bounds.
    """

    def __init__(self, options: MixOptions, *, base: Task, extra: Task) -> None:
        for name in ("shape", "bounds", *(["classes"] if options.teacher is None else [])):
            mine, other = getattr(base.info, name), getattr(extra.info, name)
            if mine != other:
                raise ValueError(f"extra has {name} {other}, and base has {mine}: they must be equal")
        if base.info.classes is None:
            raise ValueError("base must be a classification")
        for name, task in (("base", base), ("extra", extra)):
            if task.info.pool is not None:
                raise ValueError(f"{name} is itself a mixture: mix two tasks, not three")
        self.options, self.base, self.extra = options, base, extra
        self.default_model = base.default_model
        self._labels: Tensor | None = None
        self._sizes = base.info.training_indices, extra.info.training_indices
        rows = round(base.info.sizes["train"] / (1 - options.share))
        self.info = dataclasses.replace(
            base.info, sizes={**base.info.sizes, "train": rows}, pool=sum(self._sizes)
        )

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`.

        Raises:
            Refused: a batch is too small for the share of extra samples, or a task does not follow an order.
        """
        if split != "train" or not feed.shuffle:
            yield from self.base.batches(split, feed)
        else:
            yield from map(self.ready, self.raw_batches(split, feed))

    def raw_batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the mixed batches of an epoch; their inputs are those of both tasks, raw where they serve so.

        Raises:
            Refused: as by `batches`.
        """
        total, size = self.info.sizes["train"], feed.batch_size
        extra = round(size * self.options.share)
        labels = None if self.options.teacher is None else self._predicted(self.options.teacher, feed.device)
        if min(extra, size - extra) < feed.world:
            raise Refused(
                f"a batch of {size} rows with {extra} extra ones is too small for {feed.world} processes: "
                "choose a larger train.batch_size, or another share"
            )
        count = -(-total // size)
        parts = [
            self._part(task, samples, rows, count, dataclasses.replace(feed, seed=seed))
            for task, samples, rows, seed in (
                (self.base, self._sizes[0], size - extra, feed.seed),
                (self.extra, self._sizes[1], extra, derive(feed.seed, "mix extra")),
            )
        ]
        for number in range(feed.skip, epoch_batches(total, feed)):
            left = min(size, total - number * size)
            share = round(left * self.options.share)
            base, added = next(parts[0]), next(parts[1])
            if labels is not None:
                added = dataclasses.replace(added, y=labels[added.index])
            yield self._joined(base, added, left - share, share, feed)

    def _predicted(self, teacher: str, device: str) -> Tensor:
        """Return the classes that a run predicts for the extra samples, int64 (n,), by their index.

        Raises:
            Refused: there is no finished run in the folder, or its model does not fit the task.
        """
        if self._labels is None:
            model = open_model(teacher, self.base.info, device)
            labels = torch.zeros(self._sizes[1], dtype=torch.int64, device=device)
            with torch.no_grad():
                for batch in self.extra.batches("train", Feed(batch_size=_TOGETHER, device=device)):
                    labels[batch.index] = model(batch.x).argmax(1)
            self._labels = labels
        return self._labels

    def _part(self, task: Task, samples: int, rows: int, count: int, feed: Feed) -> Iterator[Batch]:
        """Yield the rows of one task for each batch of an epoch, `rows` over all processes."""
        order = endless_order(samples, feed.epoch * count * rows, count * rows, feed.seed, "mix")
        feed = dataclasses.replace(feed, batch_size=rows, order=order, samples=None)
        expected = order[feed.skip * rows :][:rows][feed.rank :: feed.world]
        raw = raw_task(task)
        batches = task.batches("train", feed) if raw is None else raw.raw_batches("train", feed)
        for number, batch in enumerate(batches):
            if not number and not torch.equal(batch.index.cpu(), expected):
                raise Refused(
                    f"{type(task).__name__} does not follow a given order of samples (Feed.order), so it "
                    "cannot be mixed"
                )
            yield batch

    def _joined(self, base: Batch, extra: Batch, first: int, second: int, feed: Feed) -> Batch:
        """Join both parts of a batch, which the last one of an epoch does not use whole."""
        base, extra = (
            _head(batch, len(range(feed.rank, rows, feed.world)))
            for batch, rows in ((base, first), (extra, second))
        )
        labels = [base.y, extra.y]
        if base.y.dim() != extra.y.dim():
            labels = [as_rows(y, self.info.classes or 0) for y in labels]
        index = torch.cat([base.index, extra.index + self._sizes[0]])
        scored = torch.arange(len(index), device=index.device) < len(base)
        info: dict[str, Any] = {} if self.options.score_extra else {"scored": scored}
        parts = dict(base.info), dict(extra.info)
        return Batch((base.x, extra.x), torch.cat(labels), index, {**info, "parts": parts})

    def ready(self, batch: Batch) -> Batch:
        """Return a mixed batch with the inputs of both tasks as one tensor."""
        info = dict(batch.info)
        rows, inputs = 0, list[Tensor]()
        for task, x, own in zip((self.base, self.extra), batch.x, info.pop("parts"), strict=True):
            part, raw = slice(rows, rows + len(x)), raw_task(task)
            found = Batch(x, batch.y[part], batch.index[part], own)
            inputs.append((found if raw is None else raw.ready(found)).x)
            rows += len(x)
        return dataclasses.replace(batch, x=torch.cat(inputs), info=info)

    def mechanism(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return 1 for each extra sample of a batch, and 0 for the others: the mean is their share."""
        return {"extra": (batch.index >= self._sizes[0]).float()}

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sample whether the output is correct: bool (N,)."""
        return self.base.score(view, output)


def _head(batch: Batch, rows: int) -> Batch:
    return Batch(*(take(each, slice(rows)) for each in (batch.x, batch.y, batch.index, batch.info)))
