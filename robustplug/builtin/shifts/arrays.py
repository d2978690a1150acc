"""Shared by the corruptions: arrays of images, draws per sample, and lengths in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float64]
"""Images (N, C, H, W), or one of their channels (N, H, W), in units of [0, 1]."""
Rngs = Sequence[np.random.Generator]
"""One generator for each sample, so that its corruption does not depend on the batch."""

_LUMINANCE = (0.299, 0.587, 0.114)
# Far below half a level: float rounding must not turn a whole level into the one below.
_TOLERANCE = 1e-3


def pixel_scale(x: Images) -> float:
    """Return the scale of lengths in pixels: min(H, W)/32, at least 1.

    The constants are for images of 32 pixels. The smallest of them are already below a pixel, so smaller
    images use the same lengths.
    """
    height, width = x.shape[-2:]
    return max(1.0, float(min(height, width)) / 32)


def normals(x: Images, rngs: Rngs) -> Images:
    """Draw from N(0, 1) in the shape of x."""
    return np.stack([rng.standard_normal(x.shape[1:]) for rng in rngs])


def uniforms(shape: tuple[int, ...], rngs: Rngs, low: float, high: float) -> Images:
    """Draw from U(low, high), an array of this shape for each sample."""
    return np.stack([rng.uniform(low, high, shape) for rng in rngs])


def grey(x: Images) -> Images:
    """Return the luminance of images with 3 channels, or the only channel of others: (N, 1, H, W)."""
    return x if x.shape[1] == 1 else np.einsum("nchw,c->nhw", x, np.array(_LUMINANCE))[:, None]


def paint(colour: Sequence[int], channels: int) -> Images:
    """Convert a colour from 8-bit levels to [0, 1], (C, 1, 1); return its luminance for 1 channel."""
    values = np.array(colour, dtype=np.float64) / 255
    return (values if channels == 3 else np.array([values @ _LUMINANCE]))[:, None, None]


def truncated(x: Images) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round down to 8-bit levels, like a cast to uint8."""
    return np.floor(np.clip(x, 0, 1) * 255 + _TOLERANCE).astype(np.uint8)


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << math.ceil(math.log2(size))
