"""RayS: search over the signs of an L∞ perturbation, Chen and Gu 2020, Algorithm 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np

from . import RaysOptions
from .boundary import ask, bisect
from .pool import Array, Flags, Sample, Search


def rays(options: RaysOptions) -> Callable[[Sample], Search]:
    """Return RayS's search."""
    return lambda sample: _rays(sample, options.tolerance)


def _rays(sample: Sample, tolerance: float) -> Search:
    """Flip the signs of ever smaller blocks, and keep each flip that reduces the distance to the boundary.

    Lengths are Euclidean, along s/‖s‖₂, as in the authors' code.
    """
    size = len(sample.x)
    longest = math.sqrt(size)
    signs, radius = np.ones(size, dtype=np.float32), math.inf

    def shorter(candidate: Array, radius: float) -> Generator[Array, Flags, float]:
        ray = candidate / np.float32(longest)
        start = min(radius, longest)
        if not (yield from ask(sample, ray, start)):
            return math.inf
        found: float = yield from bisect(sample, ray, 0.0, start, tolerance)
        return found

    radius = yield from shorter(signs, radius)
    blocks = 1
    while True:
        width = math.ceil(size / blocks)
        for start in range(0, size, width):
            candidate = signs.copy()
            candidate[start : start + width] *= -1
            found = yield from shorter(candidate, radius)
            if found < radius:
                signs, radius = candidate, found
        blocks = blocks * 2 if width > 1 else 1
