"""Random shifts and mirroring of whole batches of images.

The augmentation of a sample depends on the run's seed, the epoch, the batch number and the sample's
position in the global batch. It does not depend on the number of processes or on earlier batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...api import Feed, stream, to_device


def random_crop(x: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad each image with zeros on all sides and crop a window of the original size.

    Args:
        x: images (N, C, H, W).
        pad: width of the padding in pixels.
        top: first row of each window in the padded image, int64 (N,) in [0, 2 pad]; pad for no shift.
        left: first column, likewise.
    """
    padded = functional.pad(x, (pad, pad, pad, pad))
    # All windows as a view (N, C, 2 pad + 1, 2 pad + 1, H, W); only the chosen ones are copied.
    windows = padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def random_flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror some images from left to right.

    Args:
        x: images (N, C, H, W).
        mirrored: which images to mirror, bool (N,).
    """
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


@dataclass(frozen=True)
class Augmentation:
    """Shift images by up to `pad` pixels each way, and mirror each with probability 1/2 if `flip`."""

    pad: int = 0
    flip: bool = False

    def __call__(self, x: Tensor, feed: Feed, number: int) -> Tensor:
        """Augment this process's rows of a global batch.

        Args:
            x: images (N, C, H, W), uint8 or float.
            feed: feed with the seed, epoch, batch size and rank.
            number: number of the batch in its epoch.
        """
        return self.apply(x, to_device(self.draw(feed, number, len(x)), x.device))

    def draw(self, feed: Feed, number: int, rows: int) -> Tensor:
        """Draw what happens to each of this process's rows: first row and column, and 1 to mirror, (N, 3)."""
        rng = stream(feed.seed, "augment", feed.epoch, number)
        # Drawn for a full global batch, so that a smaller last batch or another rank changes no draw.
        shifts = torch.randint(2 * self.pad + 1, (2, feed.batch_size), generator=rng)
        mirrored = torch.randint(2, (1, feed.batch_size), generator=rng)
        mine = torch.arange(feed.batch_size)[feed.rank :: feed.world][:rows]
        return torch.cat([shifts, mirrored])[:, mine].T

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change images (N, C, H, W) as it was drawn; the host does not wait for their device."""
        top, left, mirrored = drawn.unbind(1)
        x = random_crop(x, self.pad, top, left) if self.pad else x
        return random_flip(x, mirrored.bool()) if self.flip else x
