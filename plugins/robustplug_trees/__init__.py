"""Boosted decision trees as a model, `use = "lightgbm"`, and the exact robustness of ensembles of trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robustplug.api import Bounds, Component, Count, NonNegative, Positive, hookimpl, self_trained


@dataclass(frozen=True)
class LightGbmOptions:
    """Options of `lightgbm`.

    Attributes:
        trees: number of boosting rounds; each adds one tree per class.
        leaves: largest number of leaves of a tree; its depth is not limited.
        learning_rate: factor of the output of each tree.
    """

    trees: Annotated[int, Bounds(ge=1, le=100_000)] = 100
    leaves: Annotated[int, Bounds(ge=2, le=131_072)] = 100
    learning_rate: Positive = 0.1


@dataclass(frozen=True)
class ExactTreesOptions:
    """Options of `exact-trees`.

    Attributes:
        radii: further radii at which the certified accuracy is stated.
        reach: largest radius of the search, as a multiple of the threat model's.
        steps: boxes that the search for one sample looks at before it is cut short.
    """

    radii: tuple[NonNegative, ...] = ()
    reach: Positive = 2.0
    steps: Count = 20_000


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer boosted trees."""
    yield Component(
        "lightgbm",
        "robustplug_trees.booster:boosted_trees",
        LightGbmOptions,
        "gradient-boosted decision trees of LightGBM, for images of any size; no gradients",
        "Ke et al. 2017, LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS",
        {"trees": 5, "leaves": 4},
        traits=self_trained(),
    )


@hookimpl
def robustplug_measurements() -> Iterable[Component]:
    """Offer the exact robustness of ensembles of trees."""
    yield Component(
        "exact-trees",
        "robustplug_trees.certificate:ExactTrees",
        ExactTreesOptions,
        "the nearest mistake of an ensemble of trees in L∞, by a search over boxes of leaves",
        "Chen et al. 2019, Robustness Verification of Tree-based Models, arXiv:1906.03849",
        {"steps": 50},
    )
