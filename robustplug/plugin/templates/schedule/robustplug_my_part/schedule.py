"""The computation of my-part."""

from __future__ import annotations

from . import MyPartOptions


class MyPart:
    """Let the learning rate fall from 1 to 0 along (1 − t)^power.

    A schedule that counts updates, or that also moves the momentum, has a method
    `update(progress, settings) -> Rate` instead of `__call__`; see `robustplug.api.UpdateSchedule`.

    Args:
        options: see MyPartOptions.
    """

    def __init__(self, options: MyPartOptions) -> None:
        self.power = options.power

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at a fractional epoch of a run, counted from 0."""
        return float((1 - min(epoch / epochs, 1)) ** self.power)
