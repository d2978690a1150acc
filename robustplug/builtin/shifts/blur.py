"""Blurs, for any number of channels; lengths in pixels grow with the image (`pixel_scale`)."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .arrays import Images, Rngs, pixel_scale, truncated, uniforms


def smooth(x: Images, sigma: float) -> Images:
    """Convolve the last two axes with a Gaussian, truncated at 4σ; border pixels are repeated."""
    sigmas = (0.0,) * (x.ndim - 2) + (sigma, sigma)
    result: Images = ndimage.gaussian_filter(x, sigmas, mode="nearest", truncate=4)
    return result


def gaussian_blur(x: Images, rngs: Rngs, sigma: float) -> Images:
    """Convolve with a Gaussian of σ pixels."""
    return smooth(x, sigma * pixel_scale(x))


def defocus_blur(x: Images, rngs: Rngs, radius: float, alias: float) -> Images:
    """Convolve with a disk of `radius` pixels whose edge is smoothed by a Gaussian of `alias` pixels."""
    scale = pixel_scale(x)
    kernel = disk(radius * scale, alias * scale, round(scale))
    result: Images = ndimage.correlate(x, kernel[None, None], mode="mirror")
    return result


def disk(radius: float, alias: float, reach: int) -> Images:
    """Return a disk that sums to 1, smoothed by a Gaussian of `alias` pixels, truncated at `reach`."""
    extent = math.ceil(radius) + reach
    steps = np.arange(-extent, extent + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * alias**2))
    for axis in (0, 1):
        inside = ndimage.convolve1d(inside, taps / taps.sum(), axis, mode="constant")
    result: Images = inside / inside.sum()
    return result


def glass_blur(x: Images, rngs: Rngs, sigma: float, reach: int, rounds: int) -> Images:
    """Blur, displace pixels at random, and blur again.

    In each round, every pixel away from the border is replaced by a pixel at most `reach` rows and
    columns away, with its value before the round; offsets are drawn from [−reach, reach). This matches
    the published files, whose code was meant to swap two pixels but wrote only one.
    """
    scale = pixel_scale(x)
    sigma, reach = sigma * scale, round(reach * scale)
    x = truncated(smooth(x, sigma)) / 255
    height, width = x.shape[2:]
    rows, columns = np.indices((height, width))
    inner = np.zeros((height, width), dtype=np.int64)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = 1
    for _ in range(rounds):
        shifts = inner * np.stack([rng.integers(-reach, reach, (2, height, width)) for rng in rngs])
        x = pick(x, rows + shifts[:, 0], columns + shifts[:, 1])
    return smooth(x, sigma)


def pick(x: Images, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Images:
    """Return the pixels of each image at rows and columns, (N, H, W) or broadcastable to it."""
    samples = np.arange(len(x))[:, None, None]
    return np.moveaxis(np.moveaxis(x, 1, 3)[samples, rows, columns], 3, 1)


def motion_blur(x: Images, rngs: Rngs, radius: float, sigma: float) -> Images:
    """Smear along a direction drawn from U(−45°, 45°)."""
    return smear(x, radius, sigma, uniforms((), rngs, -45, 45))


def smear(x: Images, radius: float, sigma: float, degrees: Images) -> Images:
    """Smear each image along one direction, like ImageMagick's motion blur.

    Pixels along the direction, rounded to the grid, are averaged with the weights of half a Gaussian.
    Border pixels are repeated, and the result is rounded to 8-bit levels.

    Args:
        x: images.
        radius: radius of the trail, which has 2·⌈radius⌉ + 1 pixels.
        sigma: standard deviation of the Gaussian, in pixels.
        degrees: direction of each image, (N,), clockwise from the right.
    """
    scale = pixel_scale(x)
    trail = np.arange(2 * math.ceil(radius * scale) + 1)
    weights = np.exp(-(trail**2) / (2 * (sigma * scale) ** 2))
    weights /= weights.sum()
    angles = np.deg2rad(degrees)[:, None, None]
    height, width = x.shape[2:]
    result = np.zeros_like(x)
    for step, weight in zip(trail, weights, strict=True):
        rows = np.arange(height)[:, None] + np.ceil(step * np.sin(angles) - 0.5).astype(np.int64)
        columns = np.arange(width) + np.ceil(step * np.cos(angles) - 0.5).astype(np.int64)
        result += weight * pick(x, rows.clip(0, height - 1), columns.clip(0, width - 1))
    return np.rint(result * 255) / 255


def zoom_blur(x: Images, rngs: Rngs, largest: float) -> Images:
    """Average the image and its enlargements by 1, 1.01, … up to `largest`."""
    # Rounding in arange decides whether the largest is included, as in the published files.
    factors = np.arange(1, largest, 0.01)
    total = x + sum(zoom(x, float(factor)) for factor in factors)
    return total / (len(factors) + 1)


def zoom(x: Images, factor: float) -> Images:
    """Enlarge the centre of images (…, H, W) to their full size, with linear interpolation."""
    return enlargement(x.shape[-2], factor) @ x @ enlargement(x.shape[-1], factor).T


@functools.lru_cache(maxsize=256)
def enlargement(size: int, factor: float) -> Images:
    """Return the matrix (size, size) that enlarges the centre of a line of pixels."""
    kept = math.ceil(size / factor)
    rows = ndimage.zoom(np.eye(kept), (factor, 1), order=1)
    first, start = (len(rows) - size) // 2, (size - kept) // 2
    matrix = np.zeros((size, size))
    matrix[:, start : start + kept] = rows[first : first + size]
    matrix.flags.writeable = False
    return matrix
