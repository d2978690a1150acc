"""Ensembles of trees as boxes: every leaf is a box of inputs, and adds its values to the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustplug.api import Refused

Numbers = NDArray[np.float64]

_KNOWN = (
    "decision trees, random forests, extra trees, gradient boosting and histogram gradient boosting of "
    'scikit-learn, and the model "lightgbm"'
)
# How far the sum of the leaves and the ensemble's own scores may be apart, relative to the largest score.
_AGREES = 1e-5
# About how many leaves they are compared in, besides those of the inputs.
_COMPARED = 16


@dataclass(frozen=True)
class Tree:
    """Hold the leaves of a tree.

    Attributes:
        low, high: ends of the boxes, (L, d): a leaf holds inputs with low < x ≤ high.
        values: what each leaf adds to the score of each class, (L, K).
    """

    low: Numbers
    high: Numbers
    values: Numbers

    def leaves(self, x: Numbers) -> Numbers:
        """Return the number of the leaf of each input, int64 (N,).

        Args:
            x: inputs (N, d).
        """
        inside = (self.low < x[:, None]) & (x[:, None] <= self.high)
        found: Numbers = inside.all(2).argmax(1)
        return found


@dataclass(frozen=True)
class Forest:
    """Hold an ensemble: its scores are the sum of a constant and of the leaves.

    Attributes:
        trees: the trees.
        constant: the constant, (K,).
    """

    trees: Sequence[Tree]
    constant: Numbers

    def scores(self, x: Numbers) -> Numbers:
        """Return the scores (N, K) of inputs (N, d)."""
        total = np.tile(self.constant, (len(x), 1))
        for tree in self.trees:
            total += tree.values[tree.leaves(x)]
        return total


def read_forest(model: Any, x: NDArray[Any]) -> Forest:
    """Read a fitted ensemble, and compare its scores with those of its leaves.

    Args:
        model: a tree or an ensemble of scikit-learn, or a booster of LightGBM.
        x: some inputs (N, d), at which they are compared, as they are at inputs of other leaves.

    Raises:
        Refused: it is none of these, or has what boxes do not describe, such as categories.
    """
    own: Callable[[Any], Any]
    if hasattr(model, "dump_model"):
        trees, own = list(_lightgbm(model)), lambda rows: model.predict(rows, raw_score=True)
    elif hasattr(model, "_predictors"):
        trees, own = list(_histograms(model)), model.decision_function
    elif hasattr(getattr(model, "estimators_", None), "shape") and hasattr(model, "decision_function"):
        trees, own = list(_boosted(model)), model.decision_function
    elif hasattr(model, "tree_"):
        trees, own = [_shares(model, 1)], model.predict_proba
    elif all(hasattr(each, "tree_") for each in getattr(model, "estimators_", (None,))):
        trees, own = (
            [_shares(each, len(model.estimators_)) for each in model.estimators_],
            model.predict_proba,
        )
    else:
        raise Refused(f"{type(model).__name__} is no ensemble that can be read: {_KNOWN}")
    if {each.low.shape[1] for each in trees} <= {x.shape[1]}:
        x = np.concatenate([x, _in_leaves(trees, x[0])])
    expected = _columns(np.asarray(own(x), dtype=np.float64))
    apart, constant = math.inf, np.zeros(expected.shape[1])
    if {(each.low.shape[1], each.values.shape[1]) for each in trees} <= {(x.shape[1], expected.shape[1])}:
        found = Forest(trees, constant).scores(x)
        constant = (expected - found).mean(0)
        apart = float(np.abs(found + constant - expected).max())
    if not apart <= _AGREES * max(1.0, float(np.abs(expected).max())):
        raise Refused(
            f"the leaves of {type(model).__name__} do not add up to its scores: it starts from another "
            "model, or does more than sum trees that see all features"
        )
    return Forest(trees, constant)


def _in_leaves(trees: Sequence[Tree], x: NDArray[Any]) -> NDArray[Any]:
    """Return inputs (N, d) in leaves of all trees, near to an input (d,).

    At a single input, any difference looks like a constant. Of large ensembles, only some leaves are taken.
    """
    low, high = (np.concatenate(ends) for ends in zip(*((t.low, t.high) for t in trees), strict=True))
    chosen = slice(None, None, max(1, len(low) // _COMPARED))
    # Within the box for float32, too, whose rounding could cross a threshold.
    inside = [
        np.nextafter(ends[chosen].astype(np.float32), np.float32(to))
        for ends, to in ((low, np.inf), (high, -np.inf))
    ]
    found: NDArray[Any] = np.maximum(np.minimum(x, inside[1]), inside[0]).astype(x.dtype)
    return found


def _columns(scores: Numbers) -> Numbers:
    """Return a column for each class; a single score is that of the second class, against 0."""
    flat = scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores
    return np.stack([np.zeros_like(flat), flat], 1) if flat.ndim == 1 else flat


Split = tuple[int, float, int, int]


def _boxes(features: int, splits: Callable[[int], Split | None]) -> Iterator[tuple[int, Numbers, Numbers]]:
    """Yield the number and the box of each leaf.

    Args:
        features: d.
        splits: function from a node, of which the first is 0, to its feature, its threshold, the node for
            values up to that, and the node for others; None for a leaf.
    """
    left = [(0, np.full(features, -np.inf), np.full(features, np.inf))]
    while left:
        node, low, high = left.pop()
        split = splits(node)
        if split is None:
            yield node, low, high
            continue
        feature, threshold, below, above = split
        for child, ends, which in ((below, high, 1), (above, low, 0)):
            moved = ends.copy()
            moved[feature] = min(ends[feature], threshold) if which else max(ends[feature], threshold)
            box = (low, moved) if which else (moved, high)
            if box[0][feature] < box[1][feature]:
                left.append((child, *box))


def _tree(features: int, splits: Callable[[int], Split | None], values: Callable[[int], Any]) -> Tree:
    found = list(_boxes(features, splits))
    low, high = np.stack([each[1] for each in found]), np.stack([each[2] for each in found])
    return Tree(low, high, np.stack([np.asarray(values(each[0]), dtype=np.float64) for each in found]))


def _splits(tree: Any) -> Callable[[int], Split | None]:
    """Return the splits of a tree of scikit-learn, which compares float32 inputs with its thresholds."""

    def split(node: int) -> Split | None:
        below, above = int(tree.children_left[node]), int(tree.children_right[node])
        return None if below < 0 else (int(tree.feature[node]), float(tree.threshold[node]), below, above)

    return split


def _shares(model: Any, count: int) -> Tree:
    """Return a tree of a forest, whose leaves add the shares of the classes, divided by the trees."""
    tree = model.tree_

    def values(node: int) -> Any:
        row = tree.value[node, 0]
        return row / row.sum() / count

    return _tree(int(tree.n_features), _splits(tree), values)


def _boosted(model: Any) -> Iterator[Tree]:
    columns = model.estimators_.shape[1]
    for row in model.estimators_:
        for column, each in enumerate(row):
            tree = each.tree_

            def values(node: int, tree: Any = tree, column: int = column) -> Any:
                return _at(float(model.learning_rate * tree.value[node, 0, 0]), column, columns)

            yield _tree(int(tree.n_features), _splits(tree), values)


def _at(value: float, column: int, columns: int) -> Numbers:
    """Return the values of a leaf that adds to one class; a single column is that of the second class."""
    row = np.zeros(max(2, columns))
    row[column if columns > 1 else 1] = value
    return row


def _histograms(model: Any) -> Iterator[Tree]:
    for row in model._predictors:
        for column, each in enumerate(row):
            nodes = each.nodes
            if bool(nodes["is_categorical"].any()):
                raise Refused("its trees split categories, which no interval of numbers describes")

            def split(node: int, nodes: Any = nodes) -> Split | None:
                at = nodes[node]
                if at["is_leaf"]:
                    return None
                return int(at["feature_idx"]), float(at["num_threshold"]), int(at["left"]), int(at["right"])

            def values(node: int, nodes: Any = nodes, column: int = column, count: int = len(row)) -> Any:
                return _at(float(nodes[node]["value"]), column, count)

            yield _tree(int(model.n_features_in_), split, values)


def _lightgbm(booster: Any) -> Iterator[Tree]:
    """Yield the trees of a booster, whose leaves are numbered after its splits."""
    columns, features = int(booster.num_model_per_iteration()), int(booster.num_feature())
    for number, each in enumerate(booster.dump_model()["tree_info"]):
        nodes: list[Any] = []

        def note(part: Any, nodes: list[Any] = nodes) -> int:
            at = len(nodes)
            nodes.append(part)
            if "split_feature" in part:
                if part["decision_type"] != "<=":
                    raise Refused("its trees split categories, which no interval of numbers describes")
                part["below"], part["above"] = note(part["left_child"]), note(part["right_child"])
            return at

        note(each["tree_structure"])

        def split(node: int, nodes: list[Any] = nodes) -> Split | None:
            at = nodes[node]
            if "split_feature" not in at:
                return None
            return int(at["split_feature"]), float(at["threshold"]), int(at["below"]), int(at["above"])

        def values(node: int, nodes: list[Any] = nodes, column: int = number % columns) -> Any:
            return _at(float(nodes[node]["leaf_value"]), column, columns)

        yield _tree(features, split, values)
