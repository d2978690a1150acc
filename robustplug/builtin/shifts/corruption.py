"""The corruptions of Hendrycks & Dietterich 2019, with the constants of CIFAR-10-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...api import derive
from . import CorruptionKind, blur, digital, spatter, weather
from .arrays import Images, Rngs, normals, truncated, uniforms
from .base import Shift, images
from .published import Published

if TYPE_CHECKING:
    from ...api import Batch, Vicinity
    from . import CorruptionOptions


def gaussian_noise(x: Images, rngs: Rngs, sigma: float) -> Images:
    """Add N(0, σ²)."""
    return x + sigma * normals(x, rngs)


def shot_noise(x: Images, rngs: Rngs, photons: float) -> Images:
    """Draw Poisson(x · photons) and divide by `photons`."""
    counts = [rng.poisson(image * photons) for rng, image in zip(rngs, x, strict=True)]
    return np.stack(counts) / photons


def impulse_noise(x: Images, rngs: Rngs, amount: float) -> Images:
    """Set a fraction of the values to 0 or 1, with equal probability."""
    draws = uniforms(x.shape[1:], rngs, 0, 1)
    return np.where(draws < amount, np.where(draws < amount / 2, 0.0, 1.0), x)


def speckle_noise(x: Images, rngs: Rngs, sigma: float) -> Images:
    """Add x · N(0, σ²)."""
    return x + sigma * x * normals(x, rngs)


class Corruption(Shift):
    """Corrupt images as CIFAR-10-C does, with 8-bit levels, or read the published files.

    Hendrycks & Dietterich 2019 (arXiv:1903.12261): the 15 kinds of the benchmark, and 4 more
    (speckle_noise, gaussian_blur, spatter, saturate). Images of 32 pixels are corrupted with the
    constants of the published files. Lengths in pixels grow with min(H, W)/32 and never shrink. Random
    parts have the published distribution, but other draws. Deterministic parts agree with the published
    recipe to one 8-bit level. Differences:

    - frost: generated textures instead of the published photos (`weather.frost`);
    - spatter: the light on water uses exact distances, which OpenCV approximates.

    The corruption of a sample depends on the seed, kind, severity and the sample's index, not on its
    batch or the epoch. The noises, the blurs, fog, contrast, elastic_transform and pixelate take any
    number of channels, saturate takes 3, the others 1 or 3.

    Args:
        options: see CorruptionOptions.
        ball: the inner vicinity.

    Raises:
        DataMissing: `root` has no files of this kind.
        BrokenData: the files are malformed.
    """

    # NumPy, SciPy and Pillow compute the images.
    needs_sync = True

    def __init__(self, options: CorruptionOptions, *, ball: Vicinity) -> None:
        super().__init__(ball)
        self.options = options
        self.published = None
        if options.root is not None:
            self.published = Published(Path(options.root).expanduser(), options.kind, options.severity)

    def shifted(self, batch: Batch) -> Tensor:
        """Return the corrupted images.

        Raises:
            BrokenData: the published files belong to other images.
        """
        o = self.options
        x = images(batch.x, f'corruption "{o.kind}"', KINDS[o.kind].channels)
        if self.published is not None:
            levels = self.published.images(batch)
        elif len(batch):
            clean = x.detach().float().mul(255).round().clamp(0, 255).byte().cpu().numpy()
            seeds = [derive(o.seed, "corruption", o.kind, o.severity, i) for i in batch.index.tolist()]
            levels = corrupt(clean, o.kind, o.severity, seeds)
        else:
            return x
        return torch.from_numpy(levels).to(x.device).float() / 255


def corrupt(
    levels: NDArray[np.uint8], kind: CorruptionKind, severity: int, seeds: Sequence[int]
) -> NDArray[np.uint8]:
    """Corrupt images.

    Args:
        levels: images (N, C, H, W), 8-bit levels.
        kind: name of the corruption.
        severity: severity from 1 to 5.
        seeds: seeds of the random parts, one for each image.

    Returns:
        Images (N, C, H, W), 8-bit levels.
    """
    chosen = KINDS[kind]
    function, constants = chosen.severities[severity - 1]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    return truncated(function(levels / 255, rngs, *constants))


Function = Callable[..., Images]


class Kind(NamedTuple):
    """One corruption.

    Attributes:
        severities: a function of (images, generators, *constants) and its constants, for each severity.
        channels: supported numbers of channels; () for any.
    """

    severities: tuple[tuple[Function, tuple[float, ...]], ...]
    channels: tuple[int, ...] = ()


def _kind(function: Function, *constants: float | tuple[float, ...], channels: tuple[int, ...] = ()) -> Kind:
    rows = (row if isinstance(row, tuple) else (row,) for row in constants)
    return Kind(tuple((function, row) for row in rows), channels)


_GREY_OR_RGB = (1, 3)

KINDS: Mapping[CorruptionKind, Kind] = {
    "gaussian_noise": _kind(gaussian_noise, 0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _kind(shot_noise, 500, 250, 100, 75, 50),
    "impulse_noise": _kind(impulse_noise, 0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": _kind(blur.defocus_blur, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": _kind(blur.glass_blur, (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": _kind(blur.motion_blur, (6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": _kind(blur.zoom_blur, 1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": _kind(
        weather.snow,
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        channels=_GREY_OR_RGB,
    ),
    "frost": _kind(
        weather.frost, (1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45), channels=_GREY_OR_RGB
    ),
    "fog": _kind(weather.fog, (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": _kind(digital.brightness, 0.05, 0.1, 0.15, 0.2, 0.3, channels=_GREY_OR_RGB),
    "contrast": _kind(digital.contrast, 0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": _kind(
        digital.elastic_transform,
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    "pixelate": _kind(digital.pixelate, 0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": _kind(digital.jpeg_compression, 80, 65, 58, 50, 40, channels=_GREY_OR_RGB),
    "speckle_noise": _kind(speckle_noise, 0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": _kind(blur.gaussian_blur, 0.4, 0.6, 0.7, 0.8, 1),
    "spatter": Kind(
        (
            (spatter.water, (0.62, 0.1, 0.7, 0.7, 0.5)),
            (spatter.water, (0.65, 0.1, 0.8, 0.7, 0.5)),
            (spatter.water, (0.65, 0.3, 1, 0.69, 0.5)),
            (spatter.mud, (0.65, 0.1, 0.7, 0.69, 0.6)),
            (spatter.mud, (0.65, 0.1, 0.5, 0.68, 0.6)),
        ),
        _GREY_OR_RGB,
    ),
    "saturate": _kind(digital.saturate, (0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2), channels=(3,)),
}
