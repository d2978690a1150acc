"""Intervals of accuracies, and tests for differences between accuracies."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

from ...core.measures import wilson_interval

# Two-sided, as in 95 % intervals.
LEVEL = 0.05


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean of shares, clipped to [0, 1].

    Args:
        values: at least two shares, from runs with different seeds.
    """
    from scipy.stats import t

    mean, half = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half *= float(t.ppf(1 - LEVEL / 2, len(values) - 1))
    return max(0.0, mean - half), min(1.0, mean + half)


def share_interval(values: Sequence[float], samples: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy: Wilson's over samples for one run, else Student's over runs.

    Args:
        values: accuracy of each run.
        samples: number of samples that each run was evaluated on.
    """
    if len(values) > 1:
        return mean_interval(values)
    return wilson_interval(round(values[0] * samples), samples)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the p-value of McNemar's exact test that two models are equally accurate.

    McNemar 1947, Note on the sampling error of the difference between correlated proportions.

    Args:
        one, other: whether each model is correct on each sample, for the same samples in the same order.
    """
    from scipy.stats import binomtest

    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    if not only_one + only_other:
        return 1.0
    return float(binomtest(only_one, only_one + only_other).pvalue)


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the p-value of Welch's test for equal means; each side has at least two values.

    Welch 1947, The generalization of "Student's" problem when several different population variances
    are involved.
    """
    from scipy.stats import ttest_ind

    if len({*one}) == len({*other}) == 1:
        return 1.0 if one[0] == other[0] else 0.0
    with warnings.catch_warnings():
        # Nearly equal accuracies need no warning.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_ind(one, other, equal_var=False).pvalue)


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Return for each point whether it is on the Pareto front.

    On it, no other point is at least as high in all coordinates and higher in one.
    """

    def beats(other: Sequence[float], point: Sequence[float]) -> bool:
        pairs = list(zip(other, point, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [not any(beats(other, point) for other in points) for point in points]
