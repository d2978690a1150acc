"""Averages of the weights: SWA, Izmailov et al. 2018 (arXiv:1803.05407), and exponential ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from robustplug.api import Averaging, Method, Wrapper

from . import EmaOptions, SwaOptions


def alone(inner: Method[Any]) -> Method[Any]:
    """Return a method that leaves its last weights.

    Raises:
        ValueError: it leaves an average of its own.
    """
    if inner.averaging() is not None:
        raise ValueError("the method in inner averages its weights already: leave one of both out")
    return inner


class Swa(Wrapper[SwaOptions]):
    """Leave the mean of the weights at the ends of epochs, (1/n) Σ_t w_t. Training is the inner method's.

    Raises:
        ValueError: the inner method averages, too.
    """

    def __init__(self, options: SwaOptions, *, inner: Method[Any], **networks: nn.Module | None) -> None:
        super().__init__(options, inner=alone(inner), **networks)

    def averaging(self) -> Averaging:
        """Return the mean over epochs."""
        return Averaging(None, self.options.warmup, self.options.every)


class Ema(Wrapper[EmaOptions]):
    """Leave w̄ ← τ·w̄ + (1 − τ)·w, taken after each update. Training is the inner method's.

    Raises:
        ValueError: the inner method averages, too.
    """

    def __init__(self, options: EmaOptions, *, inner: Method[Any], **networks: nn.Module | None) -> None:
        super().__init__(options, inner=alone(inner), **networks)

    def averaging(self) -> Averaging:
        """Return the exponential average over updates."""
        return Averaging(self.options.decay, self.options.warmup)
