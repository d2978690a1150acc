"""Classifiers with the interface of scikit-learn, given as objects: black boxes.

They have `predict` and `classes_`; pipelines, grid searches, and the wrappers of LightGBM and XGBoost do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.random import stream
from ...errors import RunError
from .adapter import Opened
from .contents import first_line
from .flat import check_features, flat
from .trial import Shape

Rows = Callable[[Any], Any]

# Images that scores must agree on with predict before they are used.
_TRIED = 64
# Far below any probability that matters, and the largest one of a row is never as small.
_LEAST = 1e-12


def is_classifier(source: Any) -> bool:
    """Tell whether an object is a fitted classifier."""
    return callable(getattr(source, "predict", None)) and hasattr(source, "classes_")


def open_classifier(source: Any, shape: Shape) -> Opened:
    """Turn a fitted classifier into a function from images to scores, or to class numbers.

    The scores are the decision function, or else the logarithms of the probabilities; columns of classes that
    were never seen are below all others. It is `predict` that decides: where another score is the largest,
    that of its class is put just above.

    Raises:
        RunError: it takes other features, its classes are no class numbers of the task, or it fails.
    """
    name = type(source).__name__
    numbers = class_numbers(source.classes_, name, shape.classes)
    features = getattr(source, "n_features_in_", None)
    if features is not None:
        check_features(name, int(features), shape)
    images = torch.rand(_TRIED, *shape.image, generator=stream(0, "classifier"))
    predict = _predict(source)
    try:
        expected = predict(flat(images))
        rows, notes = _scores(source, numbers, shape.classes, flat(images), expected)
    except Exception as error:  # any code may be in there
        raise RunError(
            f"{name} cannot take images of shape {shape.image} as rows of {images[0].numel()} numbers: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error

    def call(x: Tensor) -> Any:
        data = flat(x)
        return predict(data) if rows is None else decided(rows(data), predict(data))

    return Opened(call, "classifier", name, notes=notes)


def class_numbers(classes: Any, name: str, count: int) -> list[int]:
    """Return the classes of a classifier as numbers below `count`.

    Raises:
        RunError: they are something else.
    """
    try:
        values = np.asarray(classes)
        numbers = values.astype(np.int64)
        fitting = values.ndim == 1 and bool((numbers == values).all())
    except (TypeError, ValueError):
        fitting = False
    if not fitting:
        raise RunError(
            f"the classes of {name} are {str(classes)[:80]}, not the class numbers of the task: fit it on "
            f"labels 0 to {count - 1}"
        )
    wrong = [number for number in numbers.tolist() if not 0 <= number < count]
    if wrong:
        raise RunError(
            f"{name} knows class {wrong[0]}, but those of the task are 0 to {count - 1}: choose the task "
            "that it was made for"
        )
    return numbers.tolist()  # type: ignore[no-any-return]


def _predict(source: Any) -> Rows:
    return lambda rows: np.asarray(source.predict(rows)).astype(np.int64)


def _scores(
    source: Any, numbers: Sequence[int], count: int, rows: Any, expected: Any
) -> tuple[Rows | None, list[str]]:
    """Return the function of rows to scores that agrees with predict, or None, and notes."""
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
        notes.append(f"its {way} does not agree with its predict, and is not used")
    return None, notes


def decided(scores: Any, classes: Any) -> Any:
    """Return scores (N, K) as float32 in which that of the class (N,) that `predict` names is the largest."""
    scores = scores.astype(np.float32)
    at = np.arange(len(scores)), classes
    others = scores.copy()
    others[at] = -np.inf
    # A tie would be decided by the order of the classes.
    scores[at] = np.maximum(scores[at], np.nextafter(others.max(1), np.float32(np.inf)))
    return scores


def _margins(values: Any) -> Any:
    """Return a column for each class; a lone score is that of the second class against 0."""
    return np.stack([np.zeros_like(values), values], 1) if values.ndim == 1 else values


def _logarithms(probabilities: Any) -> Any:
    return np.log(np.maximum(probabilities, _LEAST))


def in_order(scores: Any, numbers: Sequence[int], count: int) -> Any:
    """Put columns in the order of class numbers; those that are missing get less than all others."""
    least = scores.min(1, keepdims=True)
    result = np.repeat(least - np.abs(least) - 1, count, 1)
    result[:, numbers] = scores
    return result
