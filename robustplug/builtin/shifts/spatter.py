"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .arrays import Images, Rngs, paint, pixel_scale
from .blur import smooth

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
# Distances from the edge of a drop are capped at this many pixels.
_FARTHEST = 20
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float64)

Levels = NDArray[np.uint8]


def water(
    x: Images, rngs: Rngs, mean: float, sigma: float, size: float, threshold: float, strength: float
) -> Images:
    """Add pale turquoise drops, lit from one side.

    Args:
        x, rngs: images with 1 or 3 channels, and a generator for each.
        mean, sigma: mean and standard deviation of the noise; its smoothed hills are the drops.
        size: size of the drops: how far the noise is smoothed, in pixels.
        threshold: height above which the noise forms a drop.
        strength: brightness of the brightest point of the drops.
    """
    drops = _hills(x, rngs, mean, sigma, size, threshold)
    drops = np.floor(drops * 255)
    light = np.stack([drop * _lit(drop.astype(np.uint8)) for drop in drops])[:, None]
    brightest = light.max((1, 2, 3), keepdims=True)
    return x + strength * light / np.where(brightest > 0, brightest, 1) * paint(_WATER, x.shape[1])


def mud(
    x: Images, rngs: Rngs, mean: float, sigma: float, size: float, threshold: float, edge: float
) -> Images:
    """Cover the image with brown drops.

    Args:
        x, rngs, mean, sigma, size, threshold: as for `water`.
        edge: how far the edges of the drops are smoothed, in pixels.
    """
    drops = (_hills(x, rngs, mean, sigma, size, threshold) > threshold).astype(np.float64)
    cover = smooth(drops, edge * pixel_scale(x))[:, None]
    cover[cover < 0.8] = 0
    return (1 - cover) * x + cover * paint(_MUD, x.shape[1])


def _hills(x: Images, rngs: Rngs, mean: float, sigma: float, size: float, threshold: float) -> Images:
    """Return smoothed noise (N, H, W), 0 where it is below the threshold."""
    # Smoothing s times as far divides the deviation by s; s times the noise yields as many, larger drops.
    scale = pixel_scale(x)
    noise = np.stack([rng.normal(mean, sigma * scale, x.shape[2:]) for rng in rngs])
    hills = smooth(noise, size * scale)
    return np.where(hills < threshold, 0, hills).clip(0, 1)


def _lit(drops: Levels) -> Images:
    """Return the light on drops (H, W) of 8-bit levels: the embossed distance to their edges."""
    edges = canny(drops, 50, 150)
    distance = np.full(drops.shape, float(_FARTHEST))
    if edges.any():
        distance = np.minimum(ndimage.distance_transform_edt(~edges), _FARTHEST)
    flat = equalized(_mean3(distance).astype(np.uint8)).astype(np.float64)
    embossed = ndimage.correlate(flat, _EMBOSS, mode="mirror").clip(0, 255)
    return np.rint(_mean3(embossed))


def _mean3(x: Images) -> Images:
    result: Images = ndimage.uniform_filter(x, 3, mode="mirror")
    return result


def canny(image: Levels, low: float, high: float) -> NDArray[np.bool_]:
    """Find edges of an 8-bit image (H, W): Canny 1986, with Sobel filters and |dx| + |dy|.

    Args:
        image: grey levels.
        low: gradient above which an edge continues.
        high: gradient above which an edge begins.
    """
    levels = image.astype(np.float64)
    down, right = (ndimage.sobel(levels, axis, mode="nearest") for axis in (0, 1))
    size = np.abs(down) + np.abs(right)
    around = np.pad(size, 1)
    height, width = size.shape

    def neighbour(rows: int, columns: int) -> Images:
        return around[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    steep, same = np.abs(down), np.sign(down) == np.sign(right)
    slope = np.tan(np.pi / 8)
    flat, upright = steep < slope * np.abs(right), steep > np.abs(right) / slope
    peak = np.select(
        [flat, upright, same],
        [
            (size > neighbour(0, -1)) & (size >= neighbour(0, 1)),
            (size > neighbour(-1, 0)) & (size >= neighbour(1, 0)),
            (size > neighbour(-1, -1)) & (size > neighbour(1, 1)),
        ],
        (size > neighbour(-1, 1)) & (size > neighbour(1, -1)),
    )
    weak = (size > low) & peak
    pieces, count = ndimage.label(weak, np.ones((3, 3)))
    begun = np.zeros(count + 1, dtype=bool)
    begun[pieces[weak & (size > high)]] = True
    begun[0] = False
    result: NDArray[np.bool_] = begun[pieces]
    return result


def equalized(image: Levels) -> Levels:
    """Spread the grey levels of an image so that their histogram is flat; a single level stays unchanged."""
    counts = np.bincount(image.ravel(), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    others = image.size - counts[darkest]
    if not others:
        return image
    above = np.cumsum(counts) - counts[darkest]
    spread: Levels = np.rint(above.clip(0) * 255 / others).astype(np.uint8)
    return spread[image]
