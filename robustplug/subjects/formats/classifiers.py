"""Classifier objects with the interface of scikit-learn, as black boxes.

They have `predict` and `classes_`, as do pipelines, grid searches, and the wrappers of LightGBM and XGBoost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...core.random import stream
from ...errors import RunError
from .adapter import Opened
from .contents import first_line
from .flat import check_features, flat
from .trial import Shape

Rows = Callable[[Any], Any]

# Number of images on which scores must agree with predict before they are used.
_TRIED = 64
# Far below any relevant probability; the largest probability of a row is never this small.
_LEAST = 1e-12


def is_classifier(source: Any) -> bool:
    """Return whether an object is a fitted classifier."""
    return callable(getattr(source, "predict", None)) and hasattr(source, "classes_")


def open_classifier(source: Any, shape: Shape) -> Opened:
    """Turn a fitted classifier into a function from images to scores, or to class indices.

    The scores are the decision function, or else the logarithms of the probabilities. Classes that were not
    in the training data score below all others. `predict` determines the class: if another score is larger,
    the score of the predicted class is raised just above it.

    Raises:
        RunError: its features or classes are not those of the task, or it fails.
    """
    name = type(source).__name__
    numbers = class_numbers(source.classes_, name, shape.classes)
    features = getattr(source, "n_features_in_", None)
    if features is not None:
        check_features(name, int(features), shape)
    images = shape.drawn(_TRIED, stream(0, "classifier"))
    predict = _predict(source)
    try:
        expected = predict(flat(images))
        rows, notes = _scores(source, numbers, shape.classes, flat(images), expected)
    except Exception as error:  # the classifier may run any code
        raise RunError(
            f"{name} cannot take images of shape {shape.image} as rows of {images[0].numel()} numbers: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error

    return Opened(Classifier(source, predict, rows), "classifier", name, notes=notes)


class Classifier:
    """A fitted classifier as a function from images to scores, or to class indices without any.

    Args:
        source: the classifier, for measurements that look into it.
        predict: function from rows of features to classes.
        rows: function from rows of features to scores; None without any.
    """

    def __init__(self, source: Any, predict: Rows, rows: Rows | None) -> None:
        self.source, self.predict, self.rows = source, predict, rows

    def __call__(self, x: Tensor) -> Any:
        """Return scores (N, K), or classes (N,)."""
        data = flat(x)
        return self.predict(data) if self.rows is None else decided(self.rows(data), self.predict(data))


def class_numbers(classes: Any, name: str, count: int) -> list[int]:
    """Return the classes of a classifier as indices below `count`.

    Raises:
        RunError: the classes are anything else.
    """
    try:
        values = np.asarray(classes)
        numbers = values.astype(np.int64)
        fitting = values.ndim == 1 and bool((numbers == values).all())
    except (TypeError, ValueError):
        fitting = False
    if not fitting:
        raise RunError(
            f"the classes of {name} are {str(classes)[:80]}, not class indices of the task: fit it on "
            f"labels 0 to {count - 1}"
        )
    wrong = [number for number in numbers.tolist() if not 0 <= number < count]
    if wrong:
        raise RunError(
            f"{name} has class {wrong[0]}, but the classes of the task are 0 to {count - 1}: choose the task "
            "that it was trained on"
        )
    return numbers.tolist()  # type: ignore[no-any-return]


def _predict(source: Any) -> Rows:
    return lambda rows: np.asarray(source.predict(rows)).astype(np.int64)


def _scores(
    source: Any, numbers: Sequence[int], count: int, rows: Any, expected: Any
) -> tuple[Rows | None, list[str]]:
    """Return a function from rows to scores that agrees with predict, or None if there is none, and notes."""
    ways: dict[str, Rows] = {"decision_function": _margins, "predict_proba": _logarithms}
    notes: list[str] = []
    for way, transform in ways.items():
        method = getattr(source, way, None)
        if method is None:
            continue

        def scores(rows: Any, method: Rows = method, transform: Rows = transform) -> Any:
            return in_order(transform(np.asarray(method(rows))), numbers, count)

        if method(rows).shape[1:] in ((), (len(numbers),)) and (scores(rows).argmax(1) == expected).all():
            return scores, notes
        notes.append(f"its {way} disagrees with its predict and is not used")
    return None, notes


def decided(scores: Any, classes: Any) -> Any:
    """Return float32 scores (N, K) in which the predicted class (N,) has the largest score."""
    scores = scores.astype(np.float32)
    at = np.arange(len(scores)), classes
    others = scores.copy()
    others[at] = -np.inf
    # The order of the classes would decide a tie.
    scores[at] = np.maximum(scores[at], np.nextafter(others.max(1), np.float32(np.inf)))
    return scores


def _margins(values: Any) -> Any:
    """Return a column for each class; a single score is that of the second class, against 0."""
    return np.stack([np.zeros_like(values), values], 1) if values.ndim == 1 else values


def _logarithms(probabilities: Any) -> Any:
    return np.log(np.maximum(probabilities, _LEAST))


def in_order(scores: Any, numbers: Sequence[int], count: int) -> Any:
    """Put columns in the order of class indices; missing classes score below all others."""
    least = scores.min(1, keepdims=True)
    result = np.repeat(least - np.abs(least) - 1, count, 1)
    result[:, numbers] = scores
    return result
