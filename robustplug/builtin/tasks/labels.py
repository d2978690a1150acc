"""Labels as class numbers: names, and numbers that do not start at 0, are sorted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key")


def class_numbers(labels: Mapping[Key, Any], classes: int | None = None) -> tuple[dict[Key, Any], list[str]]:
    """Return the labels of several splits as class numbers, and the names of the classes.

    Texts, and whole numbers that do not start at 0, are names of classes: the classes are these in ascending
    order. Other labels are returned as they are, without names.

    Args:
        labels: for each split texts, numbers (N,) or (N, 1), or one-hot rows (N, K).
        classes: number of classes, if known; then numbers are class numbers as they are.

    Raises:
        ValueError: a label is missing, no whole number, or not below the number of classes.
    """
    found = {key: _flat(np.asarray(value)) for key, value in labels.items()}
    if any(value.dtype.kind in "OSU" for value in found.values()):
        found = {key: _texts(value, key) for key, value in found.items()}
        if all(_whole(text) for value in found.values() for text in np.unique(value)):
            found = {key: value.astype(np.int64) for key, value in found.items()}
    if any(value.ndim != 1 for value in found.values()):
        return found, []
    distinct = np.unique(np.concatenate([np.unique(value) for value in found.values()]))
    if distinct.dtype.kind == "U":
        names = distinct.tolist()
    elif not np.array_equal(distinct, np.round(distinct)):
        raise ValueError("the labels are no whole numbers: give class numbers, or names of classes")
    elif classes is not None or distinct[0] == 0:
        if distinct[0] < 0 or (classes and distinct[-1] >= classes):
            raise ValueError(
                f"the labels range from {distinct[0]:.0f} to {distinct[-1]:.0f}, but must lie in 0 to "
                f"{(classes or 0) - 1}"
            )
        return found, []
    else:
        names = [f"{number:.0f}" for number in distinct.tolist()]
    return {key: np.searchsorted(distinct, value) for key, value in found.items()}, names


def _flat(labels: Any) -> Any:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _texts(labels: Any, split: object) -> Any:
    for number, label in enumerate(labels.tolist()):
        if label is None or label in ("", b"") or label != label:
            raise ValueError(f"the label of sample {number} ({split}) is missing: remove the sample")
    return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in labels.tolist()])


def _whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and (digits == "0" or not digits.startswith("0"))
