"""Snow, frost and fog, for images with 1 or 3 channels."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .arrays import Images, Rngs, grey, next_power_of_two, paint, pixel_scale, truncated, uniforms
from .blur import smear, zoom

_DARK_FROST = (40, 60, 82)
_WHITE_FROST = (236, 244, 255)
_TEXTURES = 5
_SIDE = 128


def fog(x: Images, rngs: Rngs, amount: float, decay: float) -> Images:
    """Add a cloud of height `amount`, and scale so that no value exceeds the previous maximum."""
    side = next_power_of_two(max(x.shape[2:]))
    clouds = plasma(side, decay, rngs)[:, None, : x.shape[2], : x.shape[3]]
    brightest = x.max((1, 2, 3), keepdims=True)
    result: Images = (x + amount * clouds) * brightest / (brightest + amount)
    return result


def plasma(side: int, decay: float, rngs: Rngs) -> Images:
    """Return periodic diamond-square clouds from 0 to 1, (N, side, side).

    Each halving of the grid divides the noise by decay²; the first noise has amplitude 100².

    Args:
        side: a power of two.
        decay: decay of the noise, see above.
        rngs: one generator for each cloud.
    """
    noise = uniforms((side, side), rngs, -1, 1)
    clouds = np.zeros_like(noise)
    step, amplitude = side, 1e4
    while step > 1:
        on, between = slice(None, None, step), slice(step // 2, None, step)
        corners = clouds[:, on, on]
        below, right = np.roll(corners, -1, 1), np.roll(corners, -1, 2)
        centres = (corners + below + right + np.roll(below, -1, 2)) / 4 + amplitude * noise[
            :, between, between
        ]
        tops = (corners + right + centres + np.roll(centres, 1, 1)) / 4 + amplitude * noise[:, on, between]
        sides = (corners + below + centres + np.roll(centres, 1, 2)) / 4 + amplitude * noise[:, between, on]
        clouds[:, between, between], clouds[:, on, between], clouds[:, between, on] = centres, tops, sides
        step //= 2
        amplitude /= decay**2
    clouds -= clouds.min((1, 2), keepdims=True)
    result: Images = clouds / clouds.max((1, 2), keepdims=True)
    return result


def snow(
    x: Images,
    rngs: Rngs,
    mean: float,
    sigma: float,
    size: float,
    threshold: float,
    radius: float,
    trail: float,
    keep: float,
) -> Images:
    """Whiten the image and add flakes that fall in a direction drawn from U(−135°, −45°).

    Args:
        x, rngs: images, and a generator for each.
        mean, sigma: mean and standard deviation of the noise from which the flakes are cut.
        size: size of the flakes, in pixels.
        threshold: value below which the noise is not a flake.
        radius, trail: radius and sigma of the motion blur.
        keep: fraction of the image that is not whitened.
    """
    height, width = x.shape[2:]
    noise = np.stack([rng.normal(mean, sigma, (height, width)) for rng in rngs])
    flakes = zoom(noise, size * pixel_scale(x))[:, None]
    flakes = truncated(np.where(flakes < threshold, 0, flakes)) / 255
    flakes = smear(flakes, radius, trail, uniforms((), rngs, -135, -45))
    whitened = keep * x + (1 - keep) * np.maximum(x, 1.5 * grey(x) + 0.5)
    return whitened + flakes + flakes[:, :, ::-1, ::-1]


def frost(x: Images, rngs: Rngs, keep: float, amount: float) -> Images:
    """Add a crop of a frost texture: keep · x + amount · frost.

    The published files use crops of five photos of frost, which cannot be shipped. Here the textures are
    generated: branching ice needles, in patches, from dark blue to white. Weights and crops are as
    published; the textures, and hence the error rates, are not.
    """
    height, width = x.shape[2:]
    textures = frost_textures(round(pixel_scale(x)))
    side = textures.shape[1]
    crops = []
    for rng in rngs:
        which, top, left = rng.integers((_TEXTURES, side, side))
        rows, columns = np.arange(top, top + height) % side, np.arange(left, left + width) % side
        crops.append(textures[which][np.ix_(rows, columns)])
    ice = np.stack(crops).astype(np.float64)[:, None]
    dark, white = paint(_DARK_FROST, x.shape[1]), paint(_WHITE_FROST, x.shape[1])
    return keep * x + amount * (dark + ice * (white - dark))


@functools.lru_cache(maxsize=2)
def frost_textures(factor: int) -> NDArray[np.float32]:
    """Return seamlessly repeating textures of ice from 0 to 1, float32 (5, side, side).

    Args:
        factor: factor by which the same five textures, 128 pixels wide, are enlarged.
    """
    textures = np.stack([_ice(np.random.default_rng(number)) for number in range(_TEXTURES)])
    if factor > 1:
        textures = ndimage.zoom(textures, (1, factor, factor), order=3, mode="grid-wrap", grid_mode=True)
    result: NDArray[np.float32] = textures.clip(0, 1).astype(np.float32)
    result.flags.writeable = False
    return result


def _ice(rng: np.random.Generator) -> Images:
    # Branches leave a needle at 60°, as in ice: the same three directions for all lengths.
    directions = rng.uniform(0, np.pi) + np.arange(3) * np.pi / 3
    shape = (_SIDE, _SIDE)
    ice, places = np.zeros(shape), np.full(shape, 0.006)
    for length, weight in ((16.0, 1.0), (5.0, 0.75), (2.0, 0.5)):
        for angle in directions:
            germs = (rng.random(shape) < places) * rng.uniform(0.4, 1, shape)
            ice = np.maximum(ice, weight * _needles(germs, length, angle))
        # Shorter needles grow where longer ones are.
        places = 0.1 * ice**2
    patches = ndimage.gaussian_filter(rng.standard_normal(shape), 10, mode="wrap")
    patches = np.clip(0.5 + 0.3 * patches / patches.std(), 0.05, 1)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1, mode="wrap")
    frozen: Images = ice * (0.3 + 0.7 * patches) + 0.5 * patches**2 + 0.05 * grain / grain.std()
    return frozen


def _needles(germs: Images, length: float, angle: float) -> Images:
    """Draw a needle of the given length and angle through every seed point; its ends fade."""
    steps = np.arange(-2 * length, 2 * length + 0.5, 0.5)
    rows = np.rint(steps * np.sin(angle)).astype(np.int64) % _SIDE
    columns = np.rint(steps * np.cos(angle)).astype(np.int64) % _SIDE
    kernel = np.zeros_like(germs)
    np.maximum.at(kernel, (rows, columns), np.exp(-np.abs(steps) / length))
    spectrum = np.fft.rfft2(germs) * np.fft.rfft2(kernel)
    return np.fft.irfft2(spectrum, germs.shape).clip(0, 1)
