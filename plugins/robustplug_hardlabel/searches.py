"""The searches: OPT, Sign-OPT, SVM-OPT and RayS, one sample each."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
from scipy.optimize import nnls

from . import OptOptions, RaysOptions, SignOptOptions
from .boundary import Point, ask, bisect, distance, first_point, line_search
from .pool import Array, Flags, Sample, Search

# As in the released code: smaller steps are no steps, and then the change of the direction shrinks.
STILL, FINEST = 1e-4, 1e-8
Estimate = Generator[Array, Flags, tuple[Array, Point]]
Estimator = Callable[[Sample, Point, float], Estimate]


def descend(sample: Sample, starts: int, beta: float, estimate: Estimator) -> Search:
    """Descend g(θ) by estimated gradients and a line search: Algorithms 3 and 4 of the thesis.

    Args:
        sample: searched.
        starts: random directions to begin with.
        beta: β, length of the change of a direction; a tenth of it when nothing moves.
        estimate: (sample, point, β) -> ĝ, and the point or a better one that it came across.
    """
    at = yield from first_point(sample, starts, beta / 500)
    size = 0.2
    while at is not None and beta >= FINEST:
        gradient, met = yield from estimate(sample, at, beta)
        found, size = yield from line_search(sample, at, gradient, size, beta / 500)
        at = min(found, met, key=lambda point: point.g)
        if size < STILL:
            size, beta = 1.0, beta * 0.1


def rgf(directions: int) -> Estimator:
    """Return OPT's estimate, mean of (g(θ + βu) − g(θ))/β · u: Eq. (2.16)."""

    def estimate(sample: Sample, at: Point, beta: float) -> Estimate:
        total, met = np.zeros_like(at.theta), at
        drawn = sample.gaussian(directions)
        for direction in drawn:
            u = sample.unit(direction)
            theta = sample.unit(at.theta + np.float32(beta) * u)
            g = yield from distance(sample, theta, at.g, beta / 500)
            if math.isfinite(g):
                total += np.float32((g - at.g) / beta) * u
            if g < met.g:
                met = Point(theta, g)
        return total / np.float32(directions), met

    return estimate


def _signs(sample: Sample, at: Point, beta: float, directions: int) -> Generator[Array, Flags, Array]:
    """Return s_q · u_q of some directions, (Q, D), for one query each: Eq. (2.17).

    s is +1 where a point of the old distance is not adversarial any more: g has grown.
    """
    count = min(directions, max(1, sample.left))
    drawn = sample.gaussian(count)
    drawn /= sample.lengths(drawn)[:, None]
    moved = at.theta + np.float32(beta) * drawn
    moved /= sample.lengths(moved)[:, None]
    points: Array = (sample.x + np.float32(at.g) * moved).astype(np.float32, copy=False)
    flags = yield points
    signed: Array = np.where(flags, np.float32(-1), np.float32(1))[:, None] * drawn
    return signed


def sign_mean(directions: int) -> Estimator:
    """Return Sign-OPT's estimate, mean of s_q · u_q: Eq. (2.18)."""

    def estimate(sample: Sample, at: Point, beta: float) -> Estimate:
        signed = yield from _signs(sample, at, beta, directions)
        return signed.mean(0), at

    return estimate


def svm_direction(signed: Array) -> Array:
    """Return the shortest z with z · (s_q u_q) ≥ 1 for all q: Eq. (2.19), (D,).

    As Lawson and Hanson's problem LDP: the residual of a non-negative least squares problem gives z. Where
    no z satisfies all, as with more directions than dimensions, it is the mean.

    Args:
        signed: X, rows s_q · u_q, (Q, D).
    """
    # In the span of the rows, of which there are fewer than pixels; z lies in it.
    basis, rows = np.linalg.qr(signed.T.astype(np.float64))
    system = np.vstack([rows, np.ones(len(signed))])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    weights, _ = nnls(system, goal)
    residual = goal - system @ weights
    if residual[-1] < 1e-10:
        mean: Array = signed.mean(0)
        return mean
    direction: Array = (basis @ (-residual[:-1] / residual[-1])).astype(np.float32)
    return direction


def svm(directions: int) -> Estimator:
    """Return SVM-OPT's estimate."""

    def estimate(sample: Sample, at: Point, beta: float) -> Estimate:
        signed = yield from _signs(sample, at, beta, directions)
        return svm_direction(signed), at

    return estimate


def opt(options: OptOptions) -> Callable[[Sample], Search]:
    """Return OPT's search."""
    return lambda sample: descend(sample, options.starts, options.beta, rgf(options.directions))


def sign_opt(options: SignOptOptions) -> Callable[[Sample], Search]:
    """Return Sign-OPT's search."""
    return lambda sample: descend(sample, options.starts, options.beta, sign_mean(options.directions))


def svm_opt(options: SignOptOptions) -> Callable[[Sample], Search]:
    """Return SVM-OPT's search."""
    return lambda sample: descend(sample, options.starts, options.beta, svm(options.directions))


def rays(options: RaysOptions) -> Callable[[Sample], Search]:
    """Return RayS's search: Chen and Gu 2020, Algorithm 3."""
    return lambda sample: _rays(sample, options.tolerance)


def _rays(sample: Sample, tolerance: float) -> Search:
    """Flip the signs of ever smaller blocks, and keep a flip that brings the boundary nearer.

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
