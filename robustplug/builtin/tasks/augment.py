"""Random shifts and mirroring of whole batches of images.

What happens to a sample depends on the run's seed, the epoch, the number of the batch and the
sample's place in the global batch; not on the number of processes, nor on batches drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...api import Feed, stream


def random_crop(x: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Cut a window of the old size out of each image, after padding with zeros on all sides.

    Args:
        x: images (N, C, H, W).
        pad: width of the border in pixels.
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
        mirrored: bool (N,), which ones.
    """
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


@dataclass(frozen=True)
class Augmentation:
    """Shift images by up to `pad` pixels each way, and mirror each with probability 1/2 if `flip`."""

    pad: int = 0
    flip: bool = False

    def __call__(self, x: Tensor, feed: Feed, number: int) -> Tensor:
        """Augment the rows of this process of a global batch.

        Args:
            x: images (N, C, H, W), uint8 or float.
            feed: seed, epoch, batch size, and which process this is.
            number: of the batch in its epoch.
        """
        rng = stream(feed.seed, "augment", feed.epoch, number)
        # Drawn for a full global batch, so that a ragged batch or another rank changes no draw.
        shifts = torch.randint(2 * self.pad + 1, (2, feed.batch_size), generator=rng)
        mirrored = torch.randint(2, (feed.batch_size,), generator=rng).bool()
        mine = torch.arange(feed.batch_size)[feed.rank :: feed.world][: len(x)]
        if self.pad:
            top, left = shifts[:, mine].to(x.device)
            x = random_crop(x, self.pad, top, left)
        return random_flip(x, mirrored[mine].to(x.device)) if self.flip else x
