"""The front between clean and robust accuracy, and which trials cannot reach it any more."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Point = tuple[float, float]
# Fewer trials than these say nothing about what is usual.
_ENOUGH = 4


def dominates(one: Point, other: Point) -> bool:
    """Return whether a point is as good as another in both accuracies, and better in one."""
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def front(points: Mapping[int, Point]) -> list[int]:
    """Return the numbers of the points that no other dominates, the most robust first.

    Args:
        points: (clean, robust) accuracy by number.
    """
    found = [
        at for at, point in points.items() if not any(dominates(each, point) for each in points.values())
    ]
    return sorted(found, key=lambda at: (-points[at][1], -points[at][0], at))


def is_hopeless(point: Point, others: Sequence[Point]) -> bool:
    """Return whether a trial is stopped: it is below the median of others in both accuracies.

    Args:
        point: its (clean, robust) accuracy at the end of an epoch.
        others: those of earlier trials at the end of the same epoch; nothing is decided by fewer than four.
    """
    if len(others) < _ENOUGH:
        return False
    return all(
        own < statistics.median(each) for own, each in zip(point, zip(*others, strict=True), strict=True)
    )
