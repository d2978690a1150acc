"""Per-sample losses of a classifier, as pure functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import Refused


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return −Σ_k t_k log softmax(z)_k of each sample, (N,).

    Args:
        logits: (N, K).
        target: classes int64 (N,), or rows (N, K) that sum to 1.
    """
    return F.cross_entropy(logits.float(), target, reduction="none")


def as_rows(target: Tensor, classes: int) -> Tensor:
    """Return targets as float32 rows (N, K): class numbers become one-hot rows, rows stay unchanged."""
    if target.dim() != 1:
        return target
    # one_hot looks at its values on the CPU.
    rows = torch.zeros(len(target), classes, device=target.device, dtype=torch.float32)
    return rows.scatter_(1, target[:, None], 1.0)


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Return KL(t ‖ softmax(z)) of each sample, (N,), differentiable in both arguments.

    The clamp inside the logarithm keeps the gradient finite if a target underflows to 0.

    Args:
        logits: (N, K).
        target: classes int64 (N,), or rows (N, K) that sum to 1.
    """
    rows = as_rows(target, logits.shape[1])
    log_rows = rows.clamp_min(torch.finfo(rows.dtype).tiny).log()
    return (rows * (log_rows - F.log_softmax(logits.float(), 1))).sum(1)


def margin(logits: Tensor, labels: Tensor, kappa: float | None = None) -> Tensor:
    """Return max(max_{j≠y} z_j − z_y, −κ) of each sample, (N,): above 0 means misclassified.

    Carlini & Wagner 2017 (arXiv:1608.04644 §V.A), as a loss to maximise.

    Args:
        logits: (N, K).
        labels: classes int64 (N,), or rows (N, K), whose largest entry is taken as the label.
        kappa: κ; None for no bound.
    """
    logits = logits.float()
    labels = (labels if labels.dim() == 1 else labels.argmax(1))[:, None]
    right = logits.gather(1, labels)[:, 0]
    wrong = logits.scatter(1, labels, -torch.inf).amax(1)
    result = wrong - right
    return result if kappa is None else result.clamp_min(-kappa)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio of each sample, (N,), as a loss to maximise.

    −(z_y − max_{j≠y} z_j) / (z_(1) − z_(3)): Croce & Hein 2020 (arXiv:2003.01690 Eq. 6). It is invariant to
    scaling and shifting the logits.

    Args:
        logits: (N, K), K at least 3.
        labels: classes int64 (N,), or rows (N, K), whose largest entry is taken as the label.

    Raises:
        Refused: there are fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise Refused("the DLR loss needs at least 3 classes; use margin or cross entropy")
    largest = logits.float().topk(3, dim=1).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + 1e-12)


def factors(labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return the class weight of each sample, (N,); of a mixture, the mean over its shares.

    Args:
        labels: classes int64 (N,), or rows (N, K) that sum to 1.
        class_weights: (K,).
    """
    return class_weights[labels] if labels.dim() == 1 else labels @ class_weights


def failure(loss: Any, target: Any, error: Exception) -> str:
    """Return the message for a loss that raises an error on a target."""
    name = getattr(loss, "__name__", type(loss).__name__)
    reason = f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if not isinstance(target, Tensor):
        return f"the loss {name} fails {reason}"
    if target.dim() == 1 and not target.is_floating_point():
        return (
            f"the loss {name} fails on class numbers, int64 (N,) {reason}. A loss gets class numbers or rows "
            "(N, K): as_rows(target, classes) makes rows of both; or declare its component with "
            'takes="rows"'
        )
    return (
        f"the loss {name} fails on rows of shape {tuple(target.shape)} {reason}. A loss gets class numbers "
        "or rows (N, K), as smoothed, mixed and predicted labels are: target.argmax(1) makes numbers of "
        'rows; or declare its component with takes="numbers"'
    )
