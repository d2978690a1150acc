"""Contrast, brightness, saturation, elastic deformation, coarse pixels and JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from .arrays import Images, Rngs, uniforms


def contrast(x: Images, rngs: Rngs, factor: float) -> Images:
    """Multiply the distance to the mean of each channel by a factor."""
    mean = x.mean((2, 3), keepdims=True)
    result: Images = mean + factor * (x - mean)
    return result


def brightness(x: Images, rngs: Rngs, amount: float) -> Images:
    """Add to the V of HSV, up to 1; hue and saturation stay."""
    value = x.max(1, keepdims=True)
    raised = np.minimum(value + amount, 1)
    # At the same hue and saturation all colours are proportional to V; black becomes grey.
    result: Images = np.where(value > 0, x / np.where(value > 0, value, 1), 1) * raised
    return result


def saturate(x: Images, rngs: Rngs, factor: float, amount: float) -> Images:
    """Multiply the S of HSV by a factor and add to it, within [0, 1]; hue and V stay.

    Images have 3 channels. Grey pixels have hue 0, so that a positive `amount` turns them reddish, as
    in the published files.
    """
    value = x.max(1, keepdims=True)
    chroma = value - x.min(1, keepdims=True)
    coloured = chroma > 0
    saturation = chroma / np.where(value > 0, value, 1)
    # x = V · (1 − S · away), where `away` depends on the hue alone.
    red = np.array([0.0, 1.0, 1.0])[:, None, None]
    away = np.where(coloured, (value - x) / np.where(coloured, chroma, 1), red)
    result: Images = value * (1 - np.clip(factor * saturation + amount, 0, 1) * away)
    return result


def elastic_transform(x: Images, rngs: Rngs, alpha: float, sigma: float, affine: float) -> Images:
    """Apply a random affine map, then move every pixel along a smooth random field.

    Simard et al. 2003. All three constants are fractions of min(H, W): `alpha` is the size of the field,
    `sigma` its smoothness, and `affine` how far the affine map moves three points around the centre.
    """
    height, width = x.shape[2:]
    side = min(height, width)
    x = resample(x, _affine(uniforms((3, 2), rngs, -affine * side, affine * side), height, width), "mirror")
    field = uniforms((2, height, width), rngs, -1, 1)
    smoothness = (0, 0, sigma * side, sigma * side)
    field = ndimage.gaussian_filter(field, smoothness, mode="reflect", truncate=3) * alpha * side
    return resample(x, np.indices((height, width)) + field, "reflect")


def _affine(moves: Images, height: int, width: int) -> Images:
    """Return the source of each pixel, (N, 2, H, W), if three points move by `moves`, (N, 3, 2)."""
    reach = max(1, min(height, width) // 3)
    points = np.array([height // 2, width // 2]) + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = np.concatenate([points + moves, np.ones((len(moves), 3, 1))], 2)
    back = np.linalg.solve(moved, np.broadcast_to(points.astype(np.float64), moves.shape))
    pixels = np.concatenate([np.indices((height, width)), np.ones((1, height, width))])
    result: Images = np.einsum("phw,npa->nahw", pixels, back)
    return result


def resample(x: Images, places: Images, border: str) -> Images:
    """Read images (N, C, H, W) at places (N, 2, H, W), rows and columns, with linear interpolation.

    Args:
        x: images.
        places: rows and columns to read; they may lie outside the image.
        border: mode of scipy.ndimage: "mirror" about the outer pixels, "reflect" about their edges.
    """
    result = np.empty_like(x)
    for sample, where in enumerate(places):
        for channel, plane in enumerate(x[sample]):
            result[sample, channel] = ndimage.map_coordinates(plane, where, order=1, mode=border)
    return result


def pixelate(x: Images, rngs: Rngs, share: float) -> Images:
    """Shrink to a fraction of the size and enlarge again, with box filters and 8-bit levels."""
    height, width = x.shape[2:]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    result = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        image = Image.fromarray(_levels(x[place])).resize(small, Image.Resampling.BOX)
        result[place] = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return result / 255


def jpeg_compression(x: Images, rngs: Rngs, quality: int) -> Images:
    """Encode images with 1 or 3 channels as JPEG of this quality and decode them."""
    result = np.empty_like(x)
    for sample, image in enumerate(x):
        file = io.BytesIO()
        planes = _levels(image)
        Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)).save(
            file, "JPEG", quality=quality
        )
        decoded = np.asarray(Image.open(file))
        result[sample] = np.atleast_3d(decoded).transpose(2, 0, 1)
    return result / 255


def _levels(x: Images) -> NDArray[np.uint8]:
    return np.rint(x * 255).astype(np.uint8)
