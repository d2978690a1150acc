"""Keep batches full while samples drop out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from ..core.types import Batch, take


def standing_batches(batches: Iterable[Batch], standing: Tensor) -> Iterator[Batch]:
    """Yield the rows of batches whose index is set in `standing`, bool (size,)."""
    for batch in batches:
        rows = standing[batch.index.cpu()].to(batch.index.device)
        yield Batch(take(batch.x, rows), take(batch.y, rows), batch.index[rows])


def sample_lines(batch: Batch) -> list[str]:
    """Return a line that identifies each sample: its index, and its label; of a mask, the digest."""
    numbers: list[Any] = [None] * len(batch)
    if isinstance(batch.y, Tensor):
        masks = batch.y.dim() > 2
        rows = [sha256(row.numpy().tobytes()).hexdigest() for row in batch.y.cpu()] if masks else None
        numbers = batch.y.tolist() if rows is None else rows
    return [json.dumps(pair) for pair in zip(batch.index.tolist(), numbers, strict=True)]


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
