"""Optimizers of torch as components, and learning-rate schedules as pure functions."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api import UpdateSchedule

if TYPE_CHECKING:
    import torch

    from ..api import Progress, Rate, Schedule
    from . import AdamWOptions, CyclicOptions, SgdOptions, StepOptions, WarmUpOptions


def fusable(params: Any) -> bool:
    """Return whether torch can update all these parameters with one fused kernel."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)


def sgd(options: SgdOptions, *, params: Any, **changes: Any) -> torch.optim.Optimizer:
    """Build stochastic gradient descent with momentum and L2 regularisation."""
    from torch.optim import SGD

    settings = {"lr": options.lr, "momentum": options.momentum, "weight_decay": options.weight_decay}
    return SGD(params, fused=fusable(params), **{**settings, "nesterov": options.nesterov, **changes})


def adamw(options: AdamWOptions, *, params: Any, **changes: Any) -> torch.optim.Optimizer:
    """Build AdamW."""
    from torch.optim import AdamW

    settings = {"lr": options.lr, "betas": options.betas, "weight_decay": options.weight_decay}
    return AdamW(params, fused=fusable(params), **{**settings, **changes})


class Constant:
    """Keep the learning rate constant."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return 1."""
        return 1.0


class StepDecay:
    """Multiply the learning rate by gamma at each milestone."""

    def __init__(self, options: StepOptions) -> None:
        self.options = options

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return gamma to the power of the number of milestones reached; epochs count from 0."""
        return self.options.gamma ** bisect.bisect_right(self.options.milestones, epoch)


class Cosine:
    """Anneal from 1 to 0 along half a cosine. Loshchilov & Hutter 2017 (arXiv:1608.03983 Eq. 5)."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return (1 + cos(π · epoch/epochs))/2."""
        return 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1)))


class Cyclic:
    """Rise linearly from 0 to 1, then fall linearly to 0: one triangle over the run.

    As in Fast AT (Wong et al. 2020, arXiv:2001.03994 §5).
    """

    def __init__(self, options: CyclicOptions) -> None:
        self.peak = options.peak

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the height of the triangle, which is 1 at the fraction `peak` of the run."""
        done = min(epoch / epochs, 1)
        return done / self.peak if done < self.peak else (1 - done) / (1 - self.peak)


def rise(epoch: float, length: float) -> float:
    """Return the height of a line from 0 at the start to 1 after `length` epochs, and 1 from there on."""
    return min(epoch / length, 1) if length else 1.0


class WarmUp:
    """Rise linearly from 0 over the first epochs, then follow another schedule."""

    def __init__(self, epochs: float, then: Schedule) -> None:
        self.epochs, self.then = epochs, then

    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the rising factor times that of `then`, which receives the run's own epochs."""
        return rise(epoch, self.epochs) * self.then(epoch, epochs)


class UpdateWarmUp:
    """Rise linearly from 0 over the first epochs, then follow a schedule that counts updates."""

    def __init__(self, epochs: float, then: UpdateSchedule) -> None:
        self.epochs, self.then = epochs, then

    def update(self, progress: Progress, settings: Mapping[str, Any]) -> Rate:
        """Return the rate of `then`, which receives the run's own updates, times the rising factor."""
        rate = self.then.update(progress, settings)
        return rate._replace(factor=rise(progress.moment, self.epochs) * rate.factor)


def warm_up(options: WarmUpOptions, *, then: Schedule | UpdateSchedule) -> Schedule | UpdateSchedule:
    """Build a warm-up before another schedule."""
    if isinstance(then, UpdateSchedule):
        return UpdateWarmUp(options.epochs, then)
    return WarmUp(options.epochs, then)
