"""A stream of batches as one tensor: in memory where it fits, else in a temporary file that is mapped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from torch import Tensor

# Share of the free memory that a stream may take before it goes to a file.
_SHARE = 4


def memory_limit() -> int:
    """Return how many bytes of a stream are kept in memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // _SHARE
    except (ValueError, OSError, AttributeError):  # not every system reports it
        return 1 << 30


class Spool:
    """Join batches of one shape and type without holding a large stream in memory twice.

    Args:
        limit: bytes to keep in memory.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.rows, self.bytes = limit, 0, 0
        self._parts: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._shape: Sequence[int] = ()
        self._dtype: torch.dtype = torch.float32

    def add(self, part: Tensor) -> None:
        """Append a batch (n, …)."""
        if not self.rows:
            self._shape, self._dtype = tuple(part.shape[1:]), part.dtype
        self.rows += len(part)
        self.bytes += part.numel() * part.element_size()
        if self._file is None and self.bytes > self.limit:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the tensor that maps it
            for known in self._parts:
                self._write(known)
            self._parts.clear()
        if self._file is None:
            self._parts.append(part)
        else:
            self._write(part)

    def tensor(self) -> Tensor:
        """Return all batches as one tensor."""
        if self._file is None:
            return torch.cat(self._parts)
        self._file.flush()
        kind = torch.empty(0, dtype=self._dtype).numpy().dtype
        # Copy on write: the file never changes, and torch gets memory that it may write to.
        mapped = np.memmap(self._file, dtype=kind, mode="c", shape=(self.rows, *self._shape))
        return torch.from_numpy(mapped)

    def _write(self, part: Tensor) -> None:
        assert self._file is not None
        self._file.write(np.ascontiguousarray(part.to(self._dtype).numpy()).tobytes())
