"""Shared by all shifts: the inner ball and the check of the input images."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import BoundedVicinity, Refused

if TYPE_CHECKING:
    from ...api import Batch, Step, TaskInfo, Vicinity


class Shift(abc.ABC):
    """Shift the samples; an inner vicinity defines the legal points around them.

    A ball that draws samples itself (noise, another shift) draws them from the shifted samples.

    Args:
        ball: the inner vicinity; its `eps` and `norm` become the shift's.
    """

    def __init__(self, ball: Vicinity) -> None:
        self.ball = ball
        self.norm = ball.norm
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self._placed: tuple[Tensor, Tensor] | None = None

    def within(self, low: float | Sequence[float], high: float | Sequence[float]) -> None:
        """Keep inputs in [low, high]; they are mapped to [0, 1] for the shift itself."""
        self.low, self.high = (torch.as_tensor(side, dtype=torch.float32) for side in (low, high))
        self._placed = None
        if isinstance(self.ball, BoundedVicinity):
            self.ball.within(low, high)

    def inform(self, info: TaskInfo) -> None:
        """Tell the inner ball what it must know of the task."""
        tell = getattr(self.ball, "inform", None)
        if tell is not None:
            tell(info)

    def in_range(self, batch: Batch) -> Tensor:
        """Return the shifted images in the range of the task."""
        if self.low is None or self.high is None:
            return self.shifted(batch)
        shape = (1, -1, 1, 1) if self.low.dim() else ()
        if self._placed is None or self._placed[0].device != batch.index.device:
            self._placed = self.low.to(batch.index.device), self.high.to(batch.index.device)
        low, high = (side.view(shape) for side in self._placed)
        unit = dataclasses.replace(batch, x=(batch.x - low) / (high - low))
        return low + self.shifted(unit) * (high - low)

    @property
    def eps(self) -> float:
        """The radius of the inner ball."""
        return self.ball.eps

    @eps.setter
    def eps(self, value: float) -> None:
        self.ball.eps = value

    @abc.abstractmethod
    def shifted(self, batch: Batch) -> Tensor:
        """Return the shifted images of a batch, float32 (N, C, H, W) in [0, 1]."""

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch with shifted images.

        Raises:
            Refused: the inputs are not images, or have an unsupported number of channels.
        """
        with torch.no_grad():
            shifted = dataclasses.replace(batch, x=self.in_range(batch))
        return self.ball.sample(step, shifted)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Project x to the inner ball."""
        return self.ball.project(x, origin, radius)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether x is in the inner ball: bool (N,)."""
        return self.ball.contains(x, origin, radius)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the steepest direction of unit size in the inner ball."""
        return self.ball.steepest(gradient)

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a point of the inner ball."""
        return self.ball.random_point(origin, radius, rng)


def images(x: Any, shift: str, channels: tuple[int, ...] = ()) -> Tensor:
    """Return x if it is a batch of images.

    Args:
        x: inputs of a batch.
        shift: name of the shift, for the error message.
        channels: supported numbers of channels; () for any.

    Raises:
        Refused: x is not a float tensor (N, C, H, W), or has an unsupported number of channels.
    """
    if not (isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()):
        got = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise Refused(f"{shift} needs float images (N, C, H, W), not {got}; leave it out for this task")
    if channels and x.shape[1] not in channels:
        raise Refused(
            f"{shift} needs images with {' or '.join(map(str, channels))} channels, not {x.shape[1]}; "
            "leave it out for this task"
        )
    return x
