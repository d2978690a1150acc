"""Noise on each value of an image, for any number of channels."""

from __future__ import annotations

import numpy as np

from .arrays import Images, Rngs, normals, uniforms


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
