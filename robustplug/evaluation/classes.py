"""What a classification gets right by class, and how far its confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# With more classes, a result holds no confusion matrix; with more than _NAMED, no numbers by class.
_CONFUSED, _NAMED = 200, 1000
BINS = 15


@dataclass(frozen=True)
class Standing:
    """Hold how the samples of a split stand after a row.

    Attributes:
        right: whether each sample is still correct, bool (size,).
        predicted: class that each sample is taken for, int64 (size,); −1 for none.
    """

    right: Tensor
    predicted: Tensor

    @classmethod
    def of(cls, size: int) -> Standing:
        """Return the standing before the first row."""
        return cls(torch.ones(size, dtype=torch.bool), torch.full((size,), -1))


def predictions(output: Any, classes: int | None) -> Tensor | None:
    """Return the class with the largest output of each sample, int64 (N,); None if there are no classes.

    It is −1 where the largest output is not finite, which NaN is if there is one.
    """
    if classes is None or not isinstance(output, Tensor) or output.shape[1:] != (classes,):
        return None
    largest, places = output.max(1)
    return torch.where(largest.isfinite(), places, -1)


def confidences(output: Tensor) -> Tensor:
    """Return the probability that a model gives to its prediction, (N,); NaN for decisions without one.

    Args:
        output: logits (N, K), or rows of probabilities; a decision is 1 at one class and 0 at the others.
    """
    rows = output.float()
    if bool((rows < 0).any()) or not torch.allclose(rows.sum(1), torch.ones_like(rows[:, 0]), atol=1e-3):
        return rows.softmax(1).amax(1)
    decided = bool(((rows == 0) | (rows == 1)).all())
    return torch.full_like(rows[:, 0], torch.nan) if decided else rows.amax(1)


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error, Σ_b n_b/n · |accuracy_b − confidence_b|.

    Guo et al. 2017 (arXiv:1706.04599 Eq. 3), with bins of equal width.

    Args:
        confidence: probability of each prediction, (N,) in [0, 1].
        right: whether each prediction is correct, bool (N,).
        bins: number of bins.

    Returns:
        A number in [0, 1]; NaN without samples, or if a sample has no confidence.
    """
    if not len(confidence) or bool(confidence.isnan().any()):
        return float("nan")
    values = confidence.double()
    place = (values * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right.double() - values)
    return float(gaps.abs().sum() / len(values))


def by_class(right: Tensor, labels: Tensor, classes: int | None) -> tuple[int, ...]:
    """Return the number of correct samples of each class; empty without classes, or for very many.

    Args:
        right: whether each sample is correct, bool (N,).
        labels: class of each sample, int64 (N,).
        classes: number of classes.
    """
    if classes is None or classes > _NAMED:
        return ()
    return tuple(torch.bincount(labels[right], minlength=classes).tolist())


def confusion(predicted: Tensor, labels: Tensor, classes: int | None) -> tuple[tuple[int, ...], ...]:
    """Return the number of samples by class (rows) and prediction (columns); empty for many classes.

    Args:
        predicted: prediction of each sample, int64 (N,); a negative one is not counted.
        labels: class of each sample, int64 (N,).
        classes: number of classes.
    """
    if classes is None or classes > _CONFUSED:
        return ()
    known = predicted >= 0
    if not bool(known.any()):
        return ()
    cells = labels[known] * classes + predicted[known]
    table = torch.bincount(cells, minlength=classes * classes).view(classes, classes)
    return tuple(tuple(row) for row in table.tolist())
