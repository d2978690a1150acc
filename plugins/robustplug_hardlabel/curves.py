"""What searches found, against the queries that they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .pool import Sample

# A multiple of eight: tables have an eighth, a quarter and a half of the queries.
POINTS = 80


def grid(queries: int) -> list[int]:
    """Return the numbers of queries that curves are drawn at."""
    count = min(queries, POINTS)
    return sorted({round(queries * at / count) for at in range(1, count + 1)})


def distances_at(samples: Sequence[Sample], queries: Sequence[int]) -> Any:
    """Return the least distance of each sample within each number of queries, (N, Q); inf for none."""
    table = np.full((len(samples), len(queries)), math.inf)
    for row, sample in enumerate(samples):
        for asked, distance in sample.trace:
            table[row, np.searchsorted(queries, asked) :] = distance
    return table


def summary(distances: Any, queries: Sequence[int], thresholds: Sequence[float]) -> dict[str, Any]:
    """Return the curves of Figures 2.6 and 2.8 and the numbers of Table 2.2.

    Args:
        distances: (N, Q), as `distances_at` gives them, N at least 1.
        queries: (Q,).
        thresholds: distances at which a sample counts as broken.

    Returns:
        "queries"; "median" and "mean" distance, null while too few samples are broken; "success": shares
        of broken samples by threshold.
    """
    # More than half of the samples must be broken for a median, all for a mean.
    medians, means = np.median(distances, axis=0), distances.mean(0)
    return {
        "queries": list(queries),
        "median": [finite(value) for value in medians],
        "mean": [finite(value) for value in means],
        "success": {str(eps): (distances <= eps).mean(0).tolist() for eps in thresholds},
    }


def adbd(samples: Sequence[Sample], total: int) -> float:
    """Return the average decision boundary distance, RayS §4.1: 0 for samples that are wrong anyway.

    A sample that was never broken counts with the farthest corner of [0, 1]ᴰ.

    Args:
        samples: those that are right, searched in L∞.
        total: all samples.
    """
    farthest = [float(np.maximum(sample.x, 1 - sample.x).max()) for sample in samples]
    found = [min(sample.distance, far) for sample, far in zip(samples, farthest, strict=True)]
    return sum(found) / total


def finite(value: float) -> float | None:
    """Return a number, or None for one that is not finite."""
    return float(value) if math.isfinite(value) else None
