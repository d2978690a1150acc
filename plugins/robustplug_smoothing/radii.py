"""From votes under noise to certified radii."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import Noise, Norm

Numbers = NDArray[np.float64]


def lower_bound(votes: ArrayLike, n: int, alpha: float) -> Numbers:
    """Return the one-sided lower bound of Clopper and Pearson on a probability; 0 for no votes.

    It is below the probability with a chance of at least 1 − alpha. Clopper and Pearson 1934, The use of
    confidence or fiducial limits illustrated in the case of the binomial. As `_lower_confidence_bound` of
    locuslab/smoothing, whose two-sided interval at 2α has the same lower end.

    Args:
        votes: number of successes, from 0 to n.
        n: number of draws.
        alpha: α.
    """
    from scipy.stats import beta

    count = np.asarray(votes, dtype=np.float64)
    bound: Numbers = np.where(count > 0, beta.ppf(alpha, np.maximum(count, 1), n - count + 1), 0.0)
    return bound


def radius_of(probability: ArrayLike, sigma: float, noise: Noise, norm: Norm, size: int) -> Numbers:
    """Return the radius that a lower bound on the probability of a class certifies; -1 for at most 1/2.

    Gaussian noise: R = σ Φ⁻¹(p) in L2, Cohen et al. 2019 as in `certify` of locuslab/smoothing. A ball of L1
    of radius R lies in that of L2, and one of L∞ of radius R/√d, too.

    Uniform noise on [−λ, λ]^d, λ = √3 σ: a shift by δ leaves at least 1 − ‖δ‖₁/(2λ) of the cube in common, so
    that no event changes its probability by more than ‖δ‖₁/(2λ), and R = 2λ (p − 1/2) in L1.

    Args:
        probability: p, lower bounds.
        sigma: σ.
        noise: distribution of the noise.
        norm: norm of the radius.
        size: d, number of values of an input.
    """
    from scipy.stats import norm as normal

    p = np.asarray(probability, dtype=np.float64)
    if noise == "uniform":
        found = 2 * math.sqrt(3) * sigma * (p - 0.5)
    else:
        found = sigma * normal.ppf(p) / (math.sqrt(size) if norm == "linf" else 1.0)
    result: Numbers = np.where(p > 0.5, found, -1.0)
    return result


def largest_radius(n: int, alpha: float, sigma: float, noise: Noise, norm: Norm, size: int) -> float:
    """Return the radius that n equal votes certify: no larger one can be found. -1 for none at all."""
    return float(radius_of(lower_bound(n, n, alpha), sigma, noise, norm, size))


def draws_for(radius: float, alpha: float, sigma: float, noise: Noise, norm: Norm, size: int) -> float:
    """Return the least number of draws that could certify a radius; infinite if no number could.

    All votes equal bound the probability by α^(1/n), so that n = ln α / ln p.
    """
    from scipy.stats import norm as normal

    if noise == "uniform":
        p = 0.5 + radius / (2 * math.sqrt(3) * sigma)
    else:
        p = float(normal.cdf(radius * (math.sqrt(size) if norm == "linf" else 1.0) / sigma))
    return math.inf if p >= 1 else float(math.ceil(math.log(alpha) / math.log(p)))
