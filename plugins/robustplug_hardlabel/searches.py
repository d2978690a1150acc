"""The searches that minimise g(θ): OPT, Sign-OPT, SVM-OPT and ZO-SignSGD, one sample each."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
from scipy.optimize import nnls

from . import OptOptions, SignOptOptions, ZoSignSgdOptions
from .boundary import Point, distance, first_point, line_search, point
from .pool import Array, Flags, Sample, Search

# As in the released code: steps below STILL make no progress, and β shrinks.
STILL, FINEST = 1e-4, 1e-8
Estimate = Generator[Array, Flags, tuple[Array, Point]]
Estimator = Callable[[Sample, Point, float], Estimate]


def descend(sample: Sample, starts: int, beta: float, estimate: Estimator) -> Search:
    """Minimise g(θ) with estimated gradients and a line search: Algorithms 3 and 4 of the thesis.

    Args:
        sample: the sample under attack.
        starts: number of initial directions.
        beta: β, step of the finite differences; divided by 10 when the search makes no progress.
        estimate: (sample, point, β) -> ĝ, and the best point it found: the given one or a better one.
    """
    at = yield from first_point(sample, starts, beta / 500)
    size = 0.2
    # A smooth objective is 0 within the radius: nothing is left to minimise.
    while at is not None and at.g > 0 and beta >= FINEST:
        gradient, met = yield from estimate(sample, at, beta)
        found, size = yield from line_search(sample, at, gradient, size, beta / 500)
        at = min(found, met, key=lambda each: each.g)
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
            length = yield from distance(sample, theta, at.length, beta / 500)
            if math.isfinite(length):
                there = point(sample, theta, length)
                total += np.float32((there.g - at.g) / beta) * u
                met = min(met, there, key=lambda each: each.g)
        return total / np.float32(directions), met

    return estimate


def _signs(sample: Sample, at: Point, beta: float, directions: int) -> Generator[Array, Flags, Array]:
    """Return s_q · u_q of some directions, (Q, D), for one query each: Eq. (2.17).

    The query is the point where the objective is unchanged. If it is not adversarial, g has grown: s is +1.
    """
    count = min(directions, max(1, sample.left))
    drawn = sample.gaussian(count)
    drawn /= sample.lengths(drawn)[:, None]
    moved = at.theta + np.float32(beta) * drawn
    moved /= sample.lengths(moved)[:, None]
    lengths = sample.objective.lengths(moved, at.g).astype(np.float32)[:, None]
    flags = yield sample.x + lengths * moved
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

    This is Lawson and Hanson's problem LDP: the residual of a non-negative least squares problem yields z. If
    no z satisfies all constraints, as with more directions than dimensions, return the mean.

    Args:
        signed: X, rows s_q · u_q, (Q, D).
    """
    # z lies in the span of the rows, which are fewer than the pixels: solve there.
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


def sign_of(estimator: Estimator) -> Estimator:
    """Return the sign of an estimate, as a direction: ZO-SignSGD, Liu et al. 2019, thesis §2.5.0.3."""

    def estimate(sample: Sample, at: Point, beta: float) -> Estimate:
        gradient, met = yield from estimator(sample, at, beta)
        return sample.unit(np.sign(gradient)), met

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


def zo_sign_sgd(options: ZoSignSgdOptions) -> Callable[[Sample], Search]:
    """Return ZO-SignSGD's search."""
    estimator = sign_mean if options.oracle == "sign" else rgf
    estimate = sign_of(estimator(options.directions))
    return lambda sample: descend(sample, options.starts, options.beta, estimate)
