"""What all shifts share: the inner ball, and what they take for an image."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...api import Refused

if TYPE_CHECKING:
    from ...api import Batch, Step, Vicinity


class Shift(abc.ABC):
    """Shift the samples; what is legal around them is what an inner vicinity says.

    A ball that samples itself (noise, another shift) does so from the shifted samples.

    Args:
        ball: the inner vicinity; its `eps` and `norm` become the shift's.
    """

    def __init__(self, ball: Vicinity) -> None:
        self.ball = ball
        self.norm = ball.norm

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
            Refused: the inputs are no images, or have a number of channels that the shift cannot take.
        """
        with torch.no_grad():
            shifted = dataclasses.replace(batch, x=self.shifted(batch))
        return self.ball.sample(step, shifted)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the nearest point of the inner ball."""
        return self.ball.project(x, origin, radius)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether x is in the inner ball: bool (N,)."""
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
        shift: what wants images, for the message.
        channels: the numbers of channels that it takes; () for any.

    Raises:
        Refused: x is not a float tensor (N, C, H, W), or has another number of channels.
    """
    if not (isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()):
        got = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise Refused(f"{shift} shifts float images (N, C, H, W), not {got}; leave it out for this task")
    if channels and x.shape[1] not in channels:
        raise Refused(
            f"{shift} needs images of {' or '.join(map(str, channels))} channels, not {x.shape[1]}; "
            "leave it out for this task"
        )
    return x
