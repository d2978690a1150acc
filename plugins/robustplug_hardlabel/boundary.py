"""g(θ), the distance to the decision boundary along a direction, and the steps that reduce it.

Cheng 2021, thesis §2.4. All functions are parts of a search: they yield points and receive decisions.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import NamedTuple

import numpy as np

from .pool import Array, Flags, Sample

Distance = Generator[Array, Flags, float]

# A boundary beyond this multiple of the known distance counts as none: finding it takes hundreds of queries.
FARTHEST = 4.0
GROWTH = 0.01


class Point(NamedTuple):
    """A direction of length 1, the distance to the boundary along it, and the objective there."""

    theta: Array
    length: float
    g: float


def point(sample: Sample, theta: Array, length: float) -> Point:
    """Return the point at a length along a direction."""
    return Point(theta, length, sample.objective.value(theta, length))


def ask(sample: Sample, theta: Array, length: float) -> Generator[Array, Flags, bool]:
    """Query whether x + length · θ is adversarial."""
    flags = yield (sample.x + np.float32(length) * theta)[None]
    return bool(flags[0])


def bisect(sample: Sample, theta: Array, low: float, high: float, tolerance: float) -> Distance:
    """Return the upper end of a bracket of the boundary, at most as long as the tolerance: lines 11-18.

    Args:
        sample: the sample under attack.
        theta: direction of length 1.
        low, high: a length that is not adversarial, and one that is.
        tolerance: largest length of the final bracket.
    """
    while high - low > tolerance:
        middle = (low + high) / 2
        if (yield from ask(sample, theta, middle)):
            high = middle
        else:
            low = middle
    return high


def distance(sample: Sample, theta: Array, near: float, tolerance: float) -> Distance:
    """Return the distance to the boundary, starting from a known distance nearby: Algorithm 2.

    Return math.inf if there is no boundary.
    """
    low = high = near
    if (yield from ask(sample, theta, near)):
        found: float = yield from _shrink(sample, theta, near, tolerance)
        return found
    while True:
        low, high = high, high * (1 + GROWTH)
        if high > FARTHEST * near:
            return math.inf
        if (yield from ask(sample, theta, high)):
            break
    found = yield from bisect(sample, theta, low, high, tolerance)
    return found


def _shrink(sample: Sample, theta: Array, high: float, tolerance: float) -> Distance:
    """Return the distance to the boundary below an adversarial length: lines 8-10."""
    low = high * (1 - GROWTH)
    while low > tolerance and (yield from ask(sample, theta, low)):
        high, low = low, low * (1 - GROWTH)
    found: float = yield from bisect(sample, theta, low, high, tolerance)
    return found


def improvement(
    sample: Sample, theta: Array, best: Point, tolerance: float
) -> Generator[Array, Flags, Point | None]:
    """Return the point along a direction if its objective is below the best; else None, after one query."""
    length = float(sample.objective.lengths(theta[None], best.g)[0])
    if not (yield from ask(sample, theta, length)):
        return None
    length = yield from _shrink(sample, theta, length, tolerance)
    found = point(sample, theta, length)
    return found if found.g < best.g else None


def first_point(sample: Sample, starts: int, tolerance: float) -> Generator[Array, Flags, Point | None]:
    """Return the best of some directions, either random or towards images of the goal.

    Return None if none of them leads to an adversarial point.
    """
    best: Point | None = None
    for _ in range(2 if sample.starts is None else 1):
        count = min(starts, max(1, sample.left))
        drawn = sample.gaussian(count) if sample.starts is None else sample.starts[:count] - sample.x
        if not len(drawn):
            return None
        flags = yield sample.x + drawn
        for direction in drawn[flags]:
            length, theta = sample.length(direction), sample.unit(direction)
            if best is not None:
                known = float(sample.objective.lengths(theta[None], best.g)[0])
                if length > known:
                    if not (yield from ask(sample, theta, known)):
                        continue
                    length = known
            best = point(sample, theta, (yield from bisect(sample, theta, 0.0, length, tolerance)))
        if best is not None:
            return best
    return None


def line_search(
    sample: Sample, at: Point, gradient: Array, size: float, tolerance: float
) -> Generator[Array, Flags, tuple[Point, float]]:
    """Return a better point along −gradient and the initial step size of the next line search.

    The step size is doubled while that helps. If the first step does not help, it is quartered until one
    does.

    Args:
        sample, at: the sample under attack, and the current point.
        gradient: estimate of ∇g.
        size: first step size.
        tolerance: tolerance of lengths.
    """
    best, chosen, step = at, size, size
    for _ in range(15):
        theta = sample.unit(at.theta - np.float32(step) * gradient)
        found = yield from improvement(sample, theta, best, tolerance)
        step *= 2
        if found is None:
            break
        best, chosen = found, step
    if best is at:
        step = size
        for _ in range(15):
            step *= 0.25
            theta = sample.unit(at.theta - np.float32(step) * gradient)
            found = yield from improvement(sample, theta, best, tolerance)
            if found is not None:
                return found, step
        return at, step
    return best, chosen
