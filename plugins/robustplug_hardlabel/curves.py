"""Results of searches against the number of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .pool import Sample

# A multiple of eight: tables show an eighth, a quarter and a half of the queries.
POINTS = 80


def grid(queries: int) -> list[int]:
    """Return the query counts at which curves are drawn."""
    count = min(queries, POINTS)
    return sorted({round(queries * at / count) for at in range(1, count + 1)})


def distances_at(samples: Sequence[Sample], queries: Sequence[int]) -> Any:
    """Return the smallest distance of each sample within each query count, (N, Q); inf for none."""
    table = np.full((len(samples), len(queries)), math.inf)
    for row, sample in enumerate(samples):
        for asked, distance in sample.trace:
            table[row, np.searchsorted(queries, asked) :] = distance
    return table


def summary(distances: Any, queries: Sequence[int], thresholds: Sequence[float]) -> dict[str, Any]:
    """Return the curves of Figures 2.6 and 2.8 and the numbers of Table 2.2.

    Args:
        distances: (N, Q), as `distances_at` returns them, N at least 1.
        queries: query counts, (Q,).
        thresholds: distances within which an attack counts as successful.

    Returns:
        "queries"; "median" and "mean" distance, null while too few attacks have succeeded; "success": success
        rates by threshold.
    """
    # A median needs adversarial points of more than half of the samples, a mean those of all.
    medians, means = np.median(distances, axis=0), distances.mean(0)
    return {
        "queries": list(queries),
        "median": [finite(value) for value in medians],
        "mean": [finite(value) for value in means],
        "success": {str(eps): (distances <= eps).mean(0).tolist() for eps in thresholds},
    }


def adbd(samples: Sequence[Sample], total: int) -> float:
    """Return the average decision boundary distance, RayS §4.1; misclassified samples count as 0.

    A sample without an adversarial point counts with the distance to the farthest corner of [0, 1]ᴰ.

    Args:
        samples: the correctly classified samples, after a search in L∞.
        total: number of all samples.
    """
    farthest = [float(np.maximum(sample.x, 1 - sample.x).max()) for sample in samples]
    found = [min(sample.distance, far) for sample, far in zip(samples, farthest, strict=True)]
    return sum(found) / total


def finite(value: float) -> float | None:
    """Return a number, or None if it is not finite."""
    return float(value) if math.isfinite(value) else None
