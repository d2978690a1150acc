"""Keep small pictures as they were decoded, so that each is decoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...api import memory_limit, to_device, unit_floats

# Share of a GPU's free memory that a split may take.
_SHARE = 4


class Decoded:
    """Hold the pictures of a split, as far as they are decoded: in memory, and once all are, on the GPU.

    Pictures of 8 bits are kept as uint8; once one of more bits comes, all are kept as float32 in [0, 1].

    Args:
        count: number of pictures of the split.
        size: height and width.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        # The system provides memory where pictures are written, so that few pictures of a large split take
        # little.
        self._pixels = torch.empty((count, 3, *size), dtype=torch.uint8)
        self._known = torch.zeros(count, dtype=torch.bool)
        self._whole = False
        # None where they do not fit.
        self._copies: dict[str, Tensor | None] = {}

    @staticmethod
    def fits(count: int, size: tuple[int, int]) -> bool:
        """Return whether the pictures of a split may stay in memory."""
        return count * 3 * size[0] * size[1] <= memory_limit()

    def missing(self, batches: Sequence[Tensor]) -> list[list[int]]:
        """Return for each batch of positions those to decode, if the batches come in this order."""
        if self._whole:
            return [[] for _ in batches]
        known, found = self._known.clone(), []
        for positions in batches:
            new = torch.unique(positions[~known[positions]])
            known[new] = True
            found.append(new.tolist())
        return found

    def put(self, positions: Sequence[int], pictures: Tensor) -> None:
        """Keep pictures (n, 3, H, W)."""
        if pictures.dtype != self._pixels.dtype:
            self._pixels, pictures = unit_floats(self._pixels), unit_floats(pictures)
        places = torch.tensor(positions)
        self._pixels[places] = pictures
        self._known[places] = True
        self._whole = bool(self._known.all())

    def take(self, positions: Tensor, device: str) -> Tensor:
        """Return pictures (n, 3, H, W) on a device; all of them must be known.

        Args:
            positions: int64 (n,) on the CPU.
            device: where to.
        """
        if not self._whole or torch.device(device).type != "cuda":
            return to_device(self._pixels[positions], device)
        if device not in self._copies:
            free, _ = torch.cuda.mem_get_info(device)
            fits = self._pixels.nbytes <= free // _SHARE
            self._copies[device] = self._pixels.to(device) if fits else None
        copy = self._copies[device]
        if copy is None:
            return to_device(self._pixels[positions], device)
        return copy[to_device(positions, device)]
