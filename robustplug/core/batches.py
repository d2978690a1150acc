"""Batches: the order of an epoch split over processes, the same for every task; and raw batches."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .random import stream
from .task import RawTask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .task import Task
    from .types import Feed

# Number of batches that are sorted by length together.
POOL = 50


def epoch_batches(size: int, feed: Feed) -> int:
    """Count the global batches of an epoch.

    During training, a last batch with fewer rows than processes is dropped.
    """
    size = _length(size, feed)
    whole, rest = divmod(size, feed.batch_size)
    return whole + (rest >= feed.world if feed.shuffle else rest > 0)


def _length(size: int, feed: Feed) -> int:
    size = len(feed.order) if feed.shuffle and feed.order is not None else size
    return size if feed.samples is None else min(size, feed.samples)


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
    size = _length(size, feed)
    ahead = False
    if not feed.shuffle:
        order = torch.arange(size)
    elif lengths is not None:
        rng = stream(feed.seed, "order", feed.epoch)
        order = torch.randperm(size, generator=rng) if feed.order is None else feed.order[:size]
        order = by_length(order, lengths, feed.batch_size, rng)
    elif feed.order is not None:
        order = feed.order[:size]
    else:
        # A copy, since whoever receives its rows may change them.
        order, ahead = _permutation(size, feed.seed, feed.epoch).clone(), True
    for number in range(feed.skip, epoch_batches(size, feed)):
        rows = order[number * feed.batch_size : (number + 1) * feed.batch_size]
        if feed.shuffle:
            yield rows[feed.rank :: feed.world]
        elif number % feed.world == feed.rank:
            yield rows
        if ahead:  # a GPU is busy with the batch just served, and would wait for it at the epoch's start
            _permutation(size, feed.seed, feed.epoch + 1)
            ahead = False


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    import torch

    return torch.randperm(size, generator=stream(seed, "order", epoch))


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device, through pinned memory if that is a GPU: the host need not wait for it."""
    import torch

    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def balanced_order(labels: Tensor, classes: int, seed: int, epoch: int) -> Tensor:
    """Draw an epoch in which all classes are equally frequent, up to one sample; int64 (N,).

    Samples of small classes occur several times, those of large classes not in every epoch. Within an epoch
    no sample occurs more than once more often than another one of its class.

    Args:
        labels: int64 (N,) in 0 to classes − 1.
        classes: number of classes.
        seed: seed of the run.
        epoch: number of the epoch.

    Raises:
        ValueError: a class has no samples.
    """
    import torch

    counts = torch.bincount(labels, minlength=classes)
    if not bool(counts.all()):
        raise ValueError(f"class {int((counts == 0).nonzero()[0])} has no training samples")
    rng = stream(seed, "balanced", epoch)
    # The classes that get one sample more differ between epochs.
    shares = torch.full((classes,), len(labels) // classes)
    shares[torch.randperm(classes, generator=rng)[: len(labels) % classes]] += 1
    drawn = []
    for number, share in enumerate(shares.tolist()):
        own = (labels == number).nonzero()[:, 0]
        rounds = [own[torch.randperm(len(own), generator=rng)] for _ in range(-(-share // len(own)))]
        drawn += [torch.cat(rounds)[:share]] if rounds else []
    rows = torch.cat(drawn)
    return rows[torch.randperm(len(rows), generator=rng)]


def endless_order(size: int, start: int, count: int, seed: int, *path: object) -> Tensor:
    """Return a part of an endless order in which each sample comes once before any comes again.

    Args:
        size: number of samples, at least 1.
        start: position of the first one in the endless order.
        count: number of positions to return.
        seed: seed of the run.
        path: name of the order; see `stream`.

    Returns:
        Sample positions, int64 (count,). Parts that follow each other make up a longer part.
    """
    import torch

    first, last = start // size, (start + count - 1) // size
    rounds = [torch.randperm(size, generator=stream(seed, *path, n)) for n in range(first, last + 1)]
    rows = torch.cat(rounds) if rounds else torch.empty(0, dtype=torch.int64)
    return rows[start - first * size :][:count]


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


def raw_task(task: Task) -> RawTask | None:
    """Return a task that serves raw batches, or None for others.

    A class that is derived from one, and changes `batches` alone, does not serve them.
    """
    if not isinstance(task, RawTask):
        return None
    served = next(kind for kind in type(task).__mro__ if "batches" in vars(kind))
    return task if "raw_batches" in vars(served) else None
