"""Batches of indices: the order of an epoch, split over processes, the same for every task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .random import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .types import Feed

# Number of batches that are sorted by length together.
POOL = 50


def epoch_batches(size: int, feed: Feed) -> int:
    """Count the global batches of an epoch.

    During training, a last batch with fewer rows than processes is dropped.
    """
    size = size if feed.samples is None else min(size, feed.samples)
    whole, rest = divmod(size, feed.batch_size)
    return whole + (rest >= feed.world if feed.shuffle else rest > 0)


def index_batches(size: int, feed: Feed, lengths: Tensor | None = None) -> Iterator[Tensor]:
    """Yield the sample positions of each batch of this process, int64 (n,) on the CPU.

    The order depends on seed and epoch only, never on the number of processes w. In random order
    (training), rank r takes rows r, r + w, … of each global batch. In stored order (evaluation), it takes
    the whole batches r, r + w, ….

    Args:
        size: number of samples in the split.
        feed: see Feed.
        lengths: lengths of the samples, int64 (size,). If given, the samples of a shuffled batch have
            similar lengths, which saves padding.

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
        rng = stream(feed.seed, "order", feed.epoch)
        order = torch.randperm(size, generator=rng)
        if lengths is not None:
            order = by_length(order, lengths, feed.batch_size, rng)
    else:
        order = torch.arange(size)
    for number in range(feed.skip, epoch_batches(size, feed)):
        rows = order[number * feed.batch_size : (number + 1) * feed.batch_size]
        if feed.shuffle:
            yield rows[feed.rank :: feed.world]
        elif number % feed.world == feed.rank:
            yield rows


def by_length(order: Tensor, lengths: Tensor, batch_size: int, rng: torch.Generator) -> Tensor:
    """Rearrange an order so that the samples of each batch have similar lengths.

    Each stretch of POOL batches is sorted by length; then whole batches are permuted. A smaller last batch
    stays last.

    Args:
        order: positions, int64 (n,).
        lengths: lengths of all samples, int64.
        batch_size: rows of a batch.
        rng: a generator on the CPU.
    """
    import torch

    pools = [pool[lengths[pool].argsort(stable=True)] for pool in torch.split(order, POOL * batch_size)]
    rows = torch.cat(pools) if pools else order
    whole = len(rows) // batch_size
    batches = rows[: whole * batch_size].view(whole, batch_size)
    moved = batches[torch.randperm(whole, generator=rng)].flatten()
    return torch.cat([moved, rows[whole * batch_size :]])
