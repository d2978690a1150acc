"""The nearest mistake of an ensemble of trees in L∞, exactly: a search over boxes of leaves.

An input lies in one leaf of each tree, so that the scores are constant on intersections of leaves: boxes. The
search goes through the trees one after another, as Chen et al. 2019, Robustness Verification of Tree-based
Models, go through cliques of boxes; Kantchelian et al. 2016, Evasion and Hardening of Tree Ensemble
Classifiers, solve the same problem by mixed-integer programming.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .ensembles import Forest, Numbers, Tree

# The search goes into as many calls as there are trees.
_DEEPEST = 400
# A score that is larger by so little of the largest possible one counts as equal: sums depend on their order.
EQUAL = 1e-9


class Nearest(NamedTuple):
    """Hold what a search found.

    Attributes:
        distance: infimum of the distances of inputs that are classified otherwise; the limit if there are
            none within it. If the search was cut short, a distance within which there are none.
        exact: whether the search ended by itself.
        found: whether there is such an input within the limit.
    """

    distance: float
    exact: bool
    found: bool


@dataclass
class _Search:
    """One search for inputs whose margin between two classes is not above 0."""

    trees: list[tuple[Numbers, Numbers, Numbers]]
    x: Numbers
    best: float
    left: int
    found: bool = False

    def go(self, number: int, low: Numbers, high: Numbers, margin: float, distance: float) -> None:
        """Go through the leaves of a tree within a box.

        Args:
            number: number of the tree.
            low, high: the box, low < x ≤ high.
            margin: what the trees before add.
            distance: distance of the box.
        """
        if self.left <= 0:
            return
        if number == len(self.trees):
            self.best, self.found = distance, True
            return
        lows, highs, values = self.trees[number]
        lower, upper = np.maximum(lows, low), np.minimum(highs, high)
        apart = np.maximum(lower - self.x, self.x - upper).max(1)
        within = (lower < upper).all(1) & (np.maximum(apart, 0.0) < self.best)
        order = np.flatnonzero(within)
        apart = np.maximum(apart, distance)
        for leaf in order[np.lexsort((values[order], apart[order]))]:
            if apart[leaf] >= self.best or self.left <= 0:
                return
            total, own = margin + values[leaf], float(apart[leaf])
            self.left -= 1
            if total + self.least(number + 1, lower[leaf], upper[leaf]) <= 0:
                self.go(number + 1, lower[leaf], upper[leaf], total, own)

    def least(self, number: int, low: Numbers, high: Numbers) -> float:
        """Return a lower bound of what the trees from a number on add in a box that is within reach."""
        low = np.maximum(low, np.nextafter(self.x - self.best, -np.inf))
        high = np.minimum(high, np.nextafter(self.x + self.best, np.inf))
        total = 0.0
        for lows, highs, values in self.trees[number:]:
            inside = np.flatnonzero((np.maximum(lows, low) < np.minimum(highs, high)).all(1))
            if not len(inside):
                return math.inf
            total += float(values[inside].min())
        return total


def nearest_mistake(
    forest: Forest,
    x: Numbers,
    y: int,
    limit: float,
    bounds: tuple[Numbers, Numbers],
    steps: int,
    equal: float = EQUAL,
) -> Nearest:
    """Return the distance in L∞ of the nearest input that is not classified as y, or ties with another class.

    Args:
        forest: the ensemble.
        x: an input (d,) that is classified as y.
        y: its class.
        limit: largest distance to search in.
        bounds: lowest and highest values of an input, (d,) each.
        steps: boxes to look at before the search is cut short.
        equal: share of the largest possible score up to which two scores count as equal.
    """
    best, exact, found = limit, True, False
    steps = steps if len(forest.trees) <= _DEEPEST else 0
    # The box is half open: its lower side is moved out by one float, so that the lowest value is inside.
    low, high = np.nextafter(np.minimum(bounds[0], x), -np.inf), np.maximum(bounds[1], x)
    for other in range(len(forest.constant)):
        if other == y:
            continue
        trees = [_between(tree, y, other) for tree in forest.trees]
        trees = [each for each in trees if bool((each[2] != 0).any())]
        # Trees that decide the most come first.
        trees.sort(key=lambda each: float(each[2].min() - each[2].max()))
        search = _Search(trees, x, best, steps)
        start = _start(forest, y, other, equal)
        if start + search.least(0, low, high) <= 0:
            search.go(0, low, high, start, 0.0)
        steps = search.left
        if search.found and search.best < best:
            best, found = search.best, True
        if steps <= 0:
            exact = False
            break
    if exact:
        return Nearest(best, True, found)
    return Nearest(_surely(forest, x, y, best, (low, high), equal), False, found)


def _between(tree: Tree, y: int, other: int) -> tuple[Numbers, Numbers, Numbers]:
    return tree.low, tree.high, tree.values[:, y] - tree.values[:, other]


def _start(forest: Forest, y: int, other: int, equal: float) -> float:
    """Return the margin between two classes without any leaf, less what counts as equal."""
    pair = [y, other]
    largest = np.abs(forest.constant[pair]) + sum(
        np.abs(tree.values[:, pair]).max(0) for tree in forest.trees
    )
    return float(forest.constant[y] - forest.constant[other] - equal * largest.max())


def _surely(
    forest: Forest, x: Numbers, y: int, limit: float, box: tuple[Numbers, Numbers], equal: float
) -> float:
    """Return a distance within which the least leaves of all trees together leave y the largest score."""

    def holds(radius: float) -> bool:
        low, high = np.maximum(box[0], x - radius), np.minimum(box[1], x + radius)
        low = np.nextafter(low, -np.inf)
        for other in range(len(forest.constant)):
            if other == y:
                continue
            total = _start(forest, y, other, equal)
            for lows, highs, values in (_between(tree, y, other) for tree in forest.trees):
                inside = (np.maximum(lows, low) < np.minimum(highs, high)).all(1)
                total += float(values[inside].min())
            if total <= 0:
                return False
        return True

    low, high = 0.0, limit
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
