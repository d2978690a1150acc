"""Count the passes through a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .gradients import lost


@dataclass
class Meter:
    """Count the rows that went forwards and backwards through the model.

    Attributes:
        forwards, backwards: numbers of rows.
        prepared: number of rows that went forwards once for all batches of a row of an evaluation, such as
            those that an adversary learned from; each batch of the row states the same number.
        slopes, lost: of the input gradients of an evaluation, the number of values, and of those among them
            that were no finite numbers, and count as 0.
        by_row: whether `lost` has a number for each row.
    """

    forwards: int = 0
    backwards: int = 0
    prepared: int = 0
    slopes: int = 0
    lost: int | Tensor = 0
    by_row: bool = False

    def note(self, gradient: Tensor) -> None:
        """Count the values of an input gradient, without waiting for the device."""
        self.slopes += gradient.numel()
        found = lost(gradient)
        self.lost = self.lost + (found if self.by_row else found.sum())
