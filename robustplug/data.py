"""Batches of indices: the order of an epoch, split over processes, the same for every task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .random import stream

if TYPE_CHECKING:
    from torch import Tensor

    from .types import Feed


def epoch_batches(size: int, feed: Feed) -> int:
    """Count the global batches of an epoch.

    While training, a last batch with fewer rows than processes is left out.
    """
    size = size if feed.samples is None else min(size, feed.samples)
    whole, rest = divmod(size, feed.batch_size)
    return whole + (rest >= feed.world if feed.shuffle else rest > 0)


def index_batches(size: int, feed: Feed) -> Iterator[Tensor]:
    """Yield the sample positions of each batch of this process, int64 (n,) on the CPU.

    The order depends on seed and epoch only, never on the number of processes w. Shuffled, for
    training, rank r takes rows r, r + w, … of each global batch; in stored order, for evaluation, it
    takes the whole batches r, r + w, ….

    Args:
        size: samples of the split.
        feed: see Feed.

    Raises:
        ValueError: the batch size is smaller than the number of processes.
    """
    import torch

    if feed.batch_size < feed.world:
        raise ValueError(
            f"batch_size {feed.batch_size} is smaller than the number of processes, {feed.world}"
        )
    size = size if feed.samples is None else min(size, feed.samples)
    if feed.shuffle:
        order = torch.randperm(size, generator=stream(feed.seed, "order", feed.epoch))
    else:
        order = torch.arange(size)
    for number in range(feed.skip, epoch_batches(size, feed)):
        rows = order[number * feed.batch_size : (number + 1) * feed.batch_size]
        if feed.shuffle:
            yield rows[feed.rank :: feed.world]
        elif number % feed.world == feed.rank:
            yield rows
