"""What chance explains: exact binomial tests, and intervals of shares."""

from __future__ import annotations

from scipy import stats

# The probability of a false alarm of a whole audit of an honest model, at most.
FALSE_ALARMS = 0.01


def p_more(count: int, total: int, share: float) -> float:
    """Return the probability of at least `count` of `total` independent events of probability `share`.

    1 for no events: nothing speaks against the statement that the share is at most `share`.
    """
    return float(stats.binom.sf(count - 1, total, share)) if total else 1.0


def p_fewer(count: int, total: int, share: float) -> float:
    """Return the probability of at most `count` of `total` independent events of probability `share`."""
    return float(stats.binom.cdf(count, total, share)) if total else 1.0


def interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) confidence interval of a share; (0, 1) for no events."""
    if not total:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.isf(tail, count + 1, total - count)) if count < total else 1.0
    return low, high
