"""A number that the device is still computing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Pending:
    """Hold a scalar until it is read, which waits for its own computation alone, not for later ones.

    Args:
        value: scalar; on a CUDA device it is copied, so that it may be overwritten afterwards.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._ready: Any = None
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def read(self) -> float:
        """Return the number."""
        if self._ready is not None:
            self._ready.synchronize()
        return float(self._value)
