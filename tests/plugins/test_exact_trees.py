"""The exact robustness of trees, against all boxes of tiny ensembles, a mixed-integer program and attacks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import robustplug
from robustplug.errors import Refused
from robustplug_trees import LightGbmOptions
from robustplug_trees.booster import BoostedTrees
from robustplug_trees.certificate import DECIDED, DISTANCE
from robustplug_trees.ensembles import Forest, read_forest
from robustplug_trees.exact import nearest_mistake

RNG = np.random.default_rng(0)
X = RNG.random((120, 3)).astype(np.float32)
Y = (X[:, 0] > 0.5).astype(int) + (X[:, 1] * X[:, 2] > 0.3).astype(int)
WHOLE = (np.zeros(3), np.ones(3))
MADE: dict[str, Any] = {
    "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
    "forest": RandomForestClassifier(4, max_depth=3, random_state=0),
    "extra": ExtraTreesClassifier(3, max_depth=3, random_state=0),
    "boosted": GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0),
    "histogram": HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=4, min_samples_leaf=5),
}


def fitted(name: str, classes: int = 3) -> Any:
    return MADE[name].fit(X, np.minimum(Y, classes - 1))


def brute_force(forest: Forest, x: Any, y: int) -> float:
    """Return the distance of the nearest cell of the grid of all thresholds that is not classified as y."""
    cuts = []
    for feature in range(len(x)):
        ends = {
            float(end) for tree in forest.trees for end in (*tree.low[:, feature], *tree.high[:, feature])
        }
        cuts.append([0.0, *sorted(end for end in ends if 0 < end < 1), 1.0])
    best = math.inf
    for cell in itertools.product(*(range(len(each) - 1) for each in cuts)):
        low = np.array([cuts[f][at] for f, at in enumerate(cell)])
        high = np.array([cuts[f][at + 1] for f, at in enumerate(cell)])
        scores = forest.scores(((low + high) / 2)[None])[0]
        if np.delete(scores, y).max() >= scores[y] - 1e-9:
            best = min(best, float(np.maximum(np.maximum(low - x, x - high), 0).max()))
    return best


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", list(MADE))
def test_the_nearest_mistake_is_that_of_all_boxes(name: str, classes: int) -> None:
    forest = read_forest(fitted(name, classes), X)
    for x in X[:12].astype(np.float64):
        y = int(forest.scores(x[None]).argmax())
        expected, found = brute_force(forest, x, y), nearest_mistake(forest, x, y, 2.0, WHOLE, 10**6)
        assert found.exact
        assert found.found == (expected < 2)
        assert found.distance == pytest.approx(min(expected, 2.0), abs=1e-12)


def program(forest: Forest, x: Any, y: int, other: int) -> float:
    """Return the nearest input at which another class has the score of y: Kantchelian et al. 2016, L∞.

    Variables: one of 0 and 1 for each leaf, exactly one of each tree, the input, and its distance.
    """
    leaves = [(t, leaf) for t, tree in enumerate(forest.trees) for leaf in range(len(tree.low))]
    size = len(leaves) + len(x) + 1  # the leaves, the input, the distance
    rows: list[Any] = []
    lows: list[float] = []
    highs: list[float] = []

    def add(row: dict[int, float], low: float, high: float) -> None:
        full = np.zeros(size)
        for at, value in row.items():
            full[at] = value
        rows.append(full)
        lows.append(low)
        highs.append(high)

    for t in range(len(forest.trees)):
        add({at: 1.0 for at, (tree, _) in enumerate(leaves) if tree == t}, 1, 1)
    for at, (t, leaf) in enumerate(leaves):
        for f in range(len(x)):
            low, high = forest.trees[t].low[leaf, f], forest.trees[t].high[leaf, f]
            own = len(leaves) + f
            if np.isfinite(low):  # x_f ≥ low − 2 (1 − chosen)
                add({own: 1.0, at: -2.0}, float(low) - 2.0, np.inf)
            if np.isfinite(high):
                add({own: 1.0, at: 2.0}, -np.inf, float(high) + 2.0)
    for f in range(len(x)):
        add({len(leaves) + f: 1.0, size - 1: -1.0}, -np.inf, float(x[f]))
        add({len(leaves) + f: 1.0, size - 1: 1.0}, float(x[f]), np.inf)
    margins = {
        at: float(forest.trees[t].values[leaf, y] - forest.trees[t].values[leaf, other])
        for at, (t, leaf) in enumerate(leaves)
    }
    add(margins, -np.inf, -float(forest.constant[y] - forest.constant[other]) + 1e-9)
    cost = np.zeros(size)
    cost[-1] = 1.0
    whole = np.array([1] * len(leaves) + [0] * (len(x) + 1))
    ends = Bounds(np.zeros(size), np.ones(size))
    solved = milp(
        cost, constraints=LinearConstraint(np.array(rows), lows, highs), integrality=whole, bounds=ends
    )
    return float(solved.fun) if solved.success else math.inf


@pytest.mark.parametrize("name", ["forest", "boosted"])
def test_the_nearest_mistake_is_the_optimum_of_a_mixed_integer_program(name: str) -> None:
    forest = read_forest(fitted(name), X)
    for x in X[20:24].astype(np.float64):
        y = int(forest.scores(x[None]).argmax())
        expected = min(program(forest, x, y, other) for other in range(3) if other != y)
        found = nearest_mistake(forest, x, y, 2.0, WHOLE, 10**6)
        assert found.distance == pytest.approx(min(expected, 2.0), abs=1e-6)


@pytest.mark.parametrize("name", list(MADE))
def test_a_search_that_is_cut_short_is_a_lower_bound(name: str) -> None:
    forest = read_forest(fitted(name), X)
    cut = 0
    for x in X[:20].astype(np.float64):
        y = int(forest.scores(x[None]).argmax())
        whole, short = (nearest_mistake(forest, x, y, 0.4, WHOLE, steps) for steps in (10**6, 2))
        assert short.distance <= whole.distance + 1e-12
        cut += not short.exact
    assert cut > 0


def test_thresholds_belong_to_the_left_side() -> None:
    model = DecisionTreeClassifier().fit(np.array([[0.25], [0.75]]), [0, 1])
    forest = read_forest(model, np.array([[0.1], [0.9]]))
    for x, y, expected in ((0.5, 0, 0.0), (0.3, 0, 0.2), (0.9, 1, 0.4)):
        assert model.predict([[x]])[0] == y
        found = nearest_mistake(forest, np.array([x]), y, 1.0, (np.zeros(1), np.ones(1)), 100)
        assert found.distance == pytest.approx(expected)


def test_what_is_no_ensemble_is_refused() -> None:
    for model in (KNeighborsClassifier(), make_pipeline(StandardScaler(), DecisionTreeClassifier())):
        with pytest.raises(Refused, match="is no ensemble that can be read"):
            read_forest(model.fit(X, Y), X)
    started = GradientBoostingClassifier(n_estimators=2, init=DecisionTreeClassifier(max_depth=2)).fit(X, Y)
    with pytest.raises(Refused, match="do not add up to its scores"):
        read_forest(started, X)


def test_what_does_not_sum_its_trees_is_refused_also_by_a_single_input() -> None:
    trees = [("deep", DecisionTreeClassifier(max_depth=4)), ("flat", DecisionTreeClassifier(max_depth=1))]
    for model in (
        AdaBoostClassifier(n_estimators=2),
        BaggingClassifier(DecisionTreeClassifier(max_depth=2), 3, max_features=2),
        VotingClassifier(trees, voting="soft", weights=[3, 1]),
    ):
        with pytest.raises(Refused, match="do not add up to its scores"):
            read_forest(model.fit(X, Y), X[:1])


def evaluated(model: Any, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "data": (X[:24], Y[:24]),
        "threat": {"use": "linf", "eps": 0.05},
        "device": "cpu",
    }
    given |= {"attacks": [{"use": "hop-skip-jump", "queries": 200}], "measurements": ["exact-trees"]}
    return robustplug.evaluate(model, **given | changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forest", "boosted", "histogram"])
def test_the_true_number_stands_below_a_decision_based_attack(name: str) -> None:
    result = evaluated(fitted(name))
    clean, attack, row = result.attacks
    assert not row.skipped, row.skipped
    assert all(low <= high for low, high in zip(row.right, attack.right, strict=True))
    assert "contradictions" not in result.meta
    assert row.measures[DECIDED].mean == 100
    forest, radii = read_forest(fitted(name), X), row.certified.radii
    for at, (x, y, radius) in enumerate(zip(X[:24].astype(np.float64), Y[:24], radii, strict=True)):
        expected = brute_force(forest, x, int(y)) if clean.right[at] else -1.0
        assert radius == pytest.approx(min(expected, 0.1), abs=1e-5)
    assert row.measures[DISTANCE].mean >= 0


def test_something_around_the_trees_is_refused() -> None:
    row = evaluated(fitted("forest"), wrapper={"use": "bit-depth", "bits": 3}, attacks=[]).attacks[-1]
    assert "BitDepth is no ensemble of trees, or stands around one" in row.skipped
    row = evaluated(lambda x: torch.as_tensor(x), attacks=[]).attacks[-1]
    assert "no ensemble of trees that can be looked into" in row.skipped


def test_the_model_lightgbm_is_read() -> None:
    library = pytest.importorskip("lightgbm")
    data = library.Dataset(X, Y)
    options = {
        "objective": "multiclass",
        "num_class": 3,
        "num_leaves": 4,
        "min_data_in_leaf": 5,
        "verbosity": -1,
    }
    booster = library.train(options, data, num_boost_round=3)
    forest = read_forest(booster, X)
    for x in X[:6].astype(np.float64):
        y = int(forest.scores(x[None]).argmax())
        found = nearest_mistake(forest, x, y, 2.0, WHOLE, 10**6)
        assert found.distance == pytest.approx(min(brute_force(forest, x, y), 2.0), abs=1e-12)


def test_scores_that_are_one_number_in_float32_are_a_mistake() -> None:
    library = pytest.importorskip("lightgbm")
    x, y = np.array([[0.25]] * 9 + [[0.75]] * 9, dtype=np.float32), np.array([1] * 9 + [0] * 9)
    options = {"objective": "multiclass", "num_class": 2, "num_leaves": 2, "min_data_in_leaf": 1}
    data = library.Dataset(x, y)
    lines = library.train(options | {"verbosity": -1}, data, num_boost_round=1).model_to_string().split("\n")
    # On the right, class 1 is ahead by less than float32 holds, so that class 0 is the first of two.
    leaves = iter(["0 10", "5 10.0000004"])
    lines = [f"leaf_value={next(leaves)}" if line.startswith("leaf_value=") else line for line in lines]
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes"))
    model = BoostedTrees(LightGbmOptions(), 1, 2).eval()
    model.set_extra_state(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
    assert model(torch.tensor([[0.25], [0.75]])).argmax(1).tolist() == [1, 0]
    result = evaluated(model, data=(x[:2], y[:2]), threat={"use": "linf", "eps": 0.4})
    assert "contradictions" not in result.meta
    assert result.attacks[-1].certified.radii == pytest.approx([0.25] * 2, abs=1e-4)
