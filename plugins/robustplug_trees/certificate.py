"""The exact robustness of ensembles of trees, as a measurement of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robustplug.api import CERTIFIED_RADIUS, Quantity, Refused, View

from . import ExactTreesOptions
from .ensembles import Forest, Numbers, read_forest
from .exact import EQUAL, nearest_mistake

if TYPE_CHECKING:
    from robustplug.api import Step, Vicinity

DISTANCE, DECIDED = "nearest mistake", "decided"
# What `Vicinity.contains` grants to the rounding of an attack, relative to the radius and to the range.
_RELATIVE, _ABSOLUTE = 1.01e-5, 1.01e-6
# Around an ensemble, what only turns it into a function of tensors, or its probabilities into logits.
_PLAIN = ("Adapter", "AsLogits")


class ExactTrees:
    """Certify each sample up to its nearest mistake in L∞, where no other bound leaves a gap.

    Ties between two classes count as mistakes. Where a search is cut short, the radius is what the least
    leaves of all trees together allow.

    Args:
        options: radii, and the effort of a search.
    """

    norm, confidence, about = math.inf, 1.0, ""
    # A sample takes seconds: the progress is recorded after each few.
    portion = 4

    def __init__(self, options: ExactTreesOptions) -> None:
        self.options = options
        self.radii: Sequence[float] = options.radii

    @property
    def quantities(self) -> Sequence[Quantity]:
        """Describe the distance of the nearest mistake, and for how many samples it is exact."""
        return Quantity(DISTANCE, "higher"), Quantity(DECIDED, "higher", share=True)

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> Mapping[str, Tensor]:
        """Return the certified radii, the distances of mistakes, and whether the radius is the exact one.

        A sample whose nearest mistake lies beyond the reach of the search has none.

        Raises:
            Refused: the model is no ensemble of trees, something stands around it, or its inputs are not
                numbers.
        """
        classes, x = step.task.info.classes, view.x
        if classes is None or not isinstance(x, Tensor) or not x.is_floating_point():
            raise Refused("it is about classifiers of inputs that are numbers, such as images and tables")
        model, order = ensemble_in(step.model)
        rows: Numbers = x.detach().cpu().float().flatten(1).double().numpy()
        forest = read_forest(model, rows.astype(np.float32))
        columns = list(range(classes)) if order is None else order
        outputs = step.forward(x)
        refuse_disagreement(forest, rows, columns, outputs)
        labels = (view.y if view.y.dim() == 1 else view.y.argmax(1)).tolist()
        right, eps = step.score(view, outputs).tolist(), step.radii(view, vicinity).tolist()
        bounds = tuple(_flat_bound(side, x) for side in step.task.info.bounds)
        reach = max(float(np.abs(side).max()) for side in bounds)
        limit = max([0.0, *self.options.radii])
        # Scores that differ by less may be one number to the model, and the order of the classes decides.
        equal = max(EQUAL, 2 * torch.finfo(outputs.dtype).eps)
        found = torch.full((3, len(rows)), torch.nan, dtype=torch.float64)
        for at, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if not right[at]:
                found[:, at] = torch.tensor([-1.0, 0.0, 100.0])
                continue
            # A little beyond, so that the radii that are asked for can be certified in full.
            furthest = max(limit, self.options.reach * eps[at]) * (1 + 2 * _RELATIVE) + 3 * _ABSOLUTE * reach
            own = nearest_mistake(
                forest, row, columns.index(label), furthest, (bounds[0], bounds[1]), self.options.steps, equal
            )
            radius = max(0.0, (own.distance - _ABSOLUTE * reach) / (1 + _RELATIVE))
            found[0, at], found[2, at] = radius, 100.0 * own.exact
            if own.exact and own.found:
                found[1, at] = own.distance
        radius_of, distance, decided = found.to(x.device)
        return {CERTIFIED_RADIUS: radius_of, DISTANCE: distance, DECIDED: decided}


def ensemble_in(model: nn.Module) -> tuple[Any, list[int] | None]:
    """Return the ensemble in the model under test, and the class of each of its columns; None for 0, 1, ….

    Raises:
        Refused: it is none, or something stands around it.
    """
    found: tuple[Any, list[int] | None] | None = None
    for module in model.modules():
        source = getattr(getattr(module, "function", None), "source", None)
        booster = getattr(module, "booster", None)
        if booster is not None and found is None:
            found = booster, None
        elif type(module).__name__ not in _PLAIN:
            raise Refused(
                f"{type(module).__name__} is no ensemble of trees, or stands around one: give a classifier "
                'of scikit-learn as it is, or a run of the model "lightgbm"'
            )
        if source is not None:
            found = source, [int(each) for each in source.classes_]
    if found is None:
        raise Refused("the model is no ensemble of trees that can be looked into, but a function")
    return found


def refuse_disagreement(forest: Forest, rows: Numbers, columns: list[int], outputs: Tensor) -> None:
    """Refuse an ensemble whose decisions are not those of the model under test, but for ties.

    Raises:
        Refused: they differ.
    """
    scores = forest.scores(rows)
    classes = np.asarray(columns)[scores.argmax(1)]
    best = np.sort(scores, 1)
    clear = best[:, -1] - best[:, -2] > 1e-6 * np.abs(best).max(1)
    if bool((clear & (classes != outputs.argmax(1).cpu().numpy())).any()):
        raise Refused("the decisions of its trees are not those of the model under test")


def _flat_bound(side: Any, x: Tensor) -> Numbers:
    """Return a bound of the inputs for each feature of a flattened input, (d,)."""
    bound = torch.as_tensor(side, dtype=torch.float64)
    shaped = bound.view(-1, *(1,) * (x.dim() - 2)) if bound.dim() else bound
    found: Numbers = shaped.expand(x.shape[1:]).flatten().numpy()
    return found
