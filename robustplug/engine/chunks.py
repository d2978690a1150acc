"""Keep batches full while samples leave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..types import Batch, take


def standing_batches(batches: Iterable[Batch], standing: Tensor) -> Iterator[Batch]:
    """Yield the rows of batches whose index is set in `standing`, bool (size,)."""
    for batch in batches:
        rows = standing[batch.index.cpu()].to(batch.index.device)
        yield Batch(take(batch.x, rows), take(batch.y, rows), batch.index[rows])


def regroup(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Join batches of tensors into batches of `size` rows and a last, smaller one."""
    held: list[Batch] = []
    rows = 0
    for batch in batches:
        if not len(batch):
            continue
        if not isinstance(batch.x, Tensor):
            yield batch
            continue
        held.append(batch)
        rows += len(batch)
        while rows >= size:
            joined = _join(held)
            yield _rows(joined, slice(0, size))
            held = [_rows(joined, slice(size, None))]
            rows -= size
    if rows:
        yield _join(held)


def _join(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    x, y, index = (torch.cat([getattr(b, name) for b in batches]) for name in ("x", "y", "index"))
    return Batch(x, y, index)


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.index[rows])
