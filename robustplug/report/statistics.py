"""Intervals of accuracies, and whether two accuracies differ by more than chance."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

from .tables import wilson_interval

# Two-sided, as in 95 % intervals.
LEVEL = 0.05


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean of shares, cut to [0, 1].

    Args:
        values: at least two, of runs with different seeds.
    """
    from scipy.stats import ttest_ind

    if len({*one}) == len({*other}) == 1:
        return 1.0 if one[0] == other[0] else 0.0
    with warnings.catch_warnings():
        # Accuracies that are nearly the same are no reason for a warning.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_ind(one, other, equal_var=False).pvalue)


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Tell of each point whether no other is at least as high in all coordinates and higher in one."""

    def beats(other: Sequence[float], point: Sequence[float]) -> bool:
        pairs = list(zip(other, point, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [not any(beats(other, point) for other in points) for point in points]
