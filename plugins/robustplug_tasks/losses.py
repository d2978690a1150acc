"""Losses of numbers, of several labels, of ordered classes and of pixels, for training and for attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Refused

from .regression import predictions
from .segmentation import IGNORED, pixel_losses

if TYPE_CHECKING:
    from robustplug.api import Step, View


def steps(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Σ_k p_k |k − y| of each sample, (N,): by how many steps a drawn class is off on average.

    Args:
        logits: (N, K), of classes in ascending order.
        labels: classes int64 (N,), or rows (N, K) that sum to 1.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    away = (classes[None] - classes[:, None]).abs().float()
    off = away[labels] if labels.dim() == 1 else labels.float() @ away
    return (logits.float().softmax(1) * off).sum(1)


def beyond(logits: Tensor, labels: Tensor, within: int) -> Tensor:
    """Return the margin of the classes that are off by more than k steps over the others, (N,).

    max over |j − y| > k of z_j − max over |j − y| ≤ k of z_j: above 0 means off by more than k.

    Args:
        logits: (N, K), of classes in ascending order.
        labels: classes int64 (N,), or rows (N, K), whose largest entry is taken as the label.
        within: k.
    """
    labels = labels if labels.dim() == 1 else labels.argmax(1)
    classes = torch.arange(logits.shape[1], device=logits.device)
    near = (classes[None] - labels[:, None]).abs() <= within
    z = logits.float()
    wrong = z.masked_fill(near, -torch.inf).amax(1)
    # A class in the middle may have none that is far enough; its margin is low, but finite.
    return wrong.clamp_min(torch.finfo(z.dtype).min / 2) - z.masked_fill(~near, -torch.inf).amax(1)


def label_margin(logits: Tensor, labels: Tensor, only: int | None = None) -> Tensor:
    """Return max over the labels of −(2y − 1) z, (N,): above 0, some label is wrong; below 0, none is.

    At 0, a label that is there is wrong, and one that is not there is right. A point breaks "any" label if
    and only if this maximum says so. Its gradient is that of the label nearest to wrong at the point itself:
    ascent may stay with one label where another would break, so it bounds robustness from above, as every
    attack does, and an attack on each label by itself may find more.

    Args:
        logits, labels: (N, L); labels are 0 or 1.
        only: number of the one label that counts; None for all.
    """
    margins = -(2 * labels - 1) * logits.float()
    return margins.amax(1) if only is None else margins[:, only]


class Absolute:
    """The absolute error."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return |f(x) − y| of each sample."""
        error: Tensor = predictions(output).float() - target
        return error.abs()


class Squared:
    """The squared error."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return (f(x) − y)² of each sample."""
        error: Tensor = predictions(output).float() - target
        return error.square()


class BinaryCrossEntropy:
    """The binary cross entropy, averaged over labels."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return F.binary_cross_entropy_with_logits(output.float(), target, reduction="none").mean(1)


class LabelMargin:
    """The margin of the label that is nearest to being wrong, or of the one that counts for the task.

    See `label_margin`: exact as a criterion for "any" label, and greedy among labels as a goal of ascent.
    """

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return label_margin(output, view.y, getattr(step.task, "counting", None))


class Steps:
    """The expected number of steps between prediction and label."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return steps(output, target)


class OrdinalMargin:
    """The margin of the classes that are off by too many steps for the task."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample."""
        return beyond(output, view.y, getattr(step.task, "within", 0))


class PixelCrossEntropy:
    """The cross entropy, averaged over the pixels that count."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sample.

        Raises:
            Refused: the model returns no logits (N, K, H, W).
        """
        if output.dim() != 4 or output.shape[2:] != target.shape[1:]:
            raise Refused(
                f"a segmentation needs logits (N, K, H, W), and the model returns {tuple(output.shape)}"
            )
        counts: Tensor = (target != IGNORED).flatten(1).sum(1).clamp_min(1)
        return pixel_losses(output, target).flatten(1).sum(1) / counts
