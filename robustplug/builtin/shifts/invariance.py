"""The invariance tests of SPROUT, with torchvision's own transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torchvision.transforms.v2 import functional

from .base import Shift, images

if TYPE_CHECKING:
    from ...api import Batch, Vicinity
    from . import BrightnessOptions, ContrastOptions, GreyOptions, RotateOptions


class Rotate(Shift):
    """Rotate about the centre: nearest pixel, same size, and 0 for pixels from outside.

    Args:
        options: see RotateOptions.
        ball: the inner vicinity.
    """

    # torchvision copies the matrix of the rotation from the host.
    needs_sync = True

    def __init__(self, options: RotateOptions, *, ball: Vicinity) -> None:
        super().__init__(ball)
        self.degrees = options.degrees

    def shifted(self, batch: Batch) -> Tensor:
        """Return the rotated images, with any number of channels."""
        result: Tensor = functional.rotate(images(batch.x, "rotate"), self.degrees)
        return result


class Brightness(Shift):
    """Multiply every pixel by a factor and clip at 1.

    Args:
        options: see BrightnessOptions.
        ball: the inner vicinity.
    """

    def __init__(self, options: BrightnessOptions, *, ball: Vicinity) -> None:
        super().__init__(ball)
        self.factor = options.factor

    def shifted(self, batch: Batch) -> Tensor:
        """Return the brightened images, with 1 or 3 channels."""
        x = images(batch.x, "brightness", (1, 3))
        result: Tensor = functional.adjust_brightness(x, self.factor)
        return result


class Contrast(Shift):
    """Multiply the distance to the mean grey value of the image by a factor and clip to [0, 1].

    Args:
        options: see ContrastOptions.
        ball: the inner vicinity.
    """

    def __init__(self, options: ContrastOptions, *, ball: Vicinity) -> None:
        super().__init__(ball)
        self.factor = options.factor

    def shifted(self, batch: Batch) -> Tensor:
        """Return the changed images, with 1 or 3 channels."""
        x = images(batch.x, "contrast", (1, 3))
        result: Tensor = functional.adjust_contrast(x, self.factor)
        return result


class Grey(Shift):
    """Replace each channel of a pixel by the mean of its channels (SPROUT §4.4).

    Most libraries take the luminance instead, 0.299 R + 0.587 G + 0.114 B. Images with one channel are
    already grey and stay unchanged.

    Args:
        options: see GreyOptions.
        ball: the inner vicinity.
    """

    def __init__(self, options: GreyOptions, *, ball: Vicinity) -> None:
        super().__init__(ball)

    def shifted(self, batch: Batch) -> Tensor:
        """Return the grey images, with as many channels as before."""
        x = images(batch.x, "grey")
        return x.mean(1, keepdim=True).expand_as(x).contiguous()
