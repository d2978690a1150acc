"""Colours, blur and compression."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import TaskInfo

from . import BlurOptions, ColourOptions, JpegOptions
from .sets import Transformed


class Colour(Transformed):
    """Images whose saturation, contrast and brightness change, in this order, clipped to the range.

    Args:
        options: see ColourOptions.
    """

    def __init__(self, options: ColourOptions) -> None:
        parts = {
            "brightness (ranges)": options.brightness,
            "contrast (relative)": options.contrast,
            "saturation (relative)": options.saturation,
        }
        used = {name: size for name, size in parts.items() if size > 0}
        super().__init__(options.eps, list(used), list(used.values()), one_sided=False)

    def inform(self, info: TaskInfo) -> None:
        """Check that images can change.

        Raises:
            ValueError: they are grey, and only their saturation may change.
        """
        if info.shape is not None and info.shape[0] == 1 and self.names == ("saturation (relative)",):
            raise ValueError("saturation: grey images have none, so nothing may change")

    def transformed(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the changed images (N, C, H, W)."""
        amounts = {
            name.partition(" ")[0]: (theta[:, number] * self.ranges[number]).view(-1, 1, 1, 1)
            for number, name in enumerate(self.names)
        }
        x, (low, high) = origin, self.sides(origin)
        if "saturation" in amounts:
            grey = x.mean(1, keepdim=True)
            x = grey + (x - grey) * (1 + amounts["saturation"]).clamp_min(0)
        if "contrast" in amounts:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * (1 + amounts["contrast"]).clamp_min(0)
        return x + amounts.get("brightness", 0.0) * (high - low)


class Blur(Transformed):
    """Images that are convolved with a Gaussian kernel, cut at three of its largest standard deviations.

    Pixels beyond the edges are those at the edges.

    Args:
        options: see BlurOptions.
    """

    def __init__(self, options: BlurOptions) -> None:
        super().__init__(options.eps, ["blur (pixels)"], [options.sigma], one_sided=True)
        self.half = max(math.ceil(3 * options.sigma * options.eps), 1)

    def transformed(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the blurred images (N, C, H, W)."""
        sigma = (theta * self.ranges[0]).clamp_min(1e-3)
        at = torch.arange(-self.half, self.half + 1, device=origin.device, dtype=origin.dtype)
        # Float32 must not overflow: a kernel of a thousandth of a pixel is 0 beside its middle.
        kernel = torch.exp(-(at.square() / (2 * sigma.square())).clamp_max(80))
        kernel = kernel / kernel.sum(1, keepdim=True)
        x = origin
        for shape, sides in (
            ((1, -1), (self.half, self.half, 0, 0)),
            ((-1, 1), (0, 0, self.half, self.half)),
        ):
            count, channels = x.shape[:2]
            padded = F.pad(x, sides, mode="replicate")
            weight = kernel.view(count, 1, 1, *shape).expand(-1, channels, -1, -1, -1)
            flat = padded.reshape(1, count * channels, *padded.shape[2:])
            x = F.conv2d(
                flat, weight.reshape(count * channels, 1, *weight.shape[3:]), groups=count * channels
            )
            x = x.view(origin.shape)
        return x


class Jpeg(Transformed):
    """Images that Pillow compresses as JPEG files and reads again; channel by channel unless there are three.

    Args:
        options: see JpegOptions.
    """

    smooth = False

    def __init__(self, options: JpegOptions) -> None:
        super().__init__(options.eps, ["loss of quality (of 100)"], [100 - options.quality], one_sided=True)

    def _coarse(self) -> int:
        """Return the number of qualities."""
        return math.ceil(self.ranges[0] * self.eps) + 1

    def transformed(self, origin: Tensor, theta: Tensor) -> Tensor:
        """Return the compressed images (N, C, H, W), without gradients."""
        low, high = self.sides(origin)
        levels = ((origin.detach() - low) / (high - low) * 255).round().clamp(0, 255).byte().cpu()
        lost = (theta.detach()[:, 0] * self.ranges[0]).round().long().cpu()
        found = []
        for image, loss in zip(levels, lost.tolist(), strict=True):
            parts = [image] if len(image) == 3 else list(image.split(1))
            found.append(torch.cat([_compressed(part, min(max(100 - loss, 1), 100)) for part in parts]))
        return torch.stack(found).to(origin.device, origin.dtype) / 255 * (high - low) + low


def _compressed(image: Tensor, quality: int) -> Tensor:
    """Return an image (1 or 3, H, W) of bytes after compression."""
    from PIL import Image

    pixels = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file))
    return torch.from_numpy(read.copy()).view(*pixels.shape).permute(2, 0, 1)
