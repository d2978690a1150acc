"""Snapshots of one value per sample, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def spacing_at(epoch: int, rows: int) -> int:
    """Return the distance between snapshots after some epochs: the smallest power of 2 at which they fit."""
    spacing = 1
    while (epoch - 1) // spacing >= rows:
        spacing *= 2
    return spacing


class History(nn.Module):
    """Keep evenly spaced snapshots: when there are too many, drop every second and double the spacing.

    Args:
        rows: largest number of snapshots to keep, even.
        size: number of samples.
    """

    values: Tensor
    epochs: Tensor
    spacing: Tensor

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        # Half precision is exact to 1/2000 of a radius; figures show no more detail.
        self.register_buffer("values", torch.zeros(rows, size, dtype=torch.float16))
        self.register_buffer("epochs", torch.full((rows,), -1, dtype=torch.int64))
        self.register_buffer("spacing", torch.ones((), dtype=torch.int64))

    def note(self, epoch: int, values: Tensor) -> None:
        """Take a snapshot, if one is due.

        Args:
            epoch: number of finished epochs; called for each, from 1 on.
            values: value of each sample, (N,).
        """
        rows = len(self.epochs)
        # From the epochs alone: the buffer is for readers, and would have to come from the device.
        spacing, wanted = spacing_at(epoch - 1, rows), spacing_at(epoch, rows)
        while spacing < wanted:
            half = rows // 2
            self.values[:half] = self.values[::2].clone()
            self.epochs[:half] = self.epochs[::2].clone()
            self.epochs[half:] = -1
            spacing *= 2
            self.spacing.fill_(spacing)
        if (epoch - 1) % spacing == 0:
            row = (epoch - 1) // spacing
            self.values[row], self.epochs[row] = values.to(torch.float16), epoch

    def snapshots(self) -> tuple[Tensor, Tensor]:
        """Return the epochs, int64 (M,), and the snapshots after them, float32 (M, N)."""
        taken = self.epochs >= 0
        return self.epochs[taken], self.values[taken].float()
