"""Slots for training translation models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Step, View

from ..text.search import Translation
from ..text.words import END, PAD, UNKNOWN, lengths, trimmed
from .lstm import Forced

if TYPE_CHECKING:
    from ..options import TranslationLossOptions


def with_end(target: Tensor) -> Tensor:
    """Return translations (N, T) without their shared padding, with </s> after each: (N, T' + 1)."""
    target = F.pad(trimmed(target), (0, 1), value=PAD)
    return target.scatter(1, lengths(target)[:, None], END)


def token_loss(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross entropy of the words of each translation, </s> included: (N,).

    Args:
        logits: (N, T + 1, V).
        target: int64 (N, T) or wider.
        smoothing: α of (1 − α)·one-hot + α/V.
    """
    words = with_end(target)
    losses = F.cross_entropy(
        logits.flatten(0, 1),
        words.flatten(),
        reduction="none",
        ignore_index=PAD,
        label_smoothing=smoothing,
    )
    return losses.view(words.shape).sum(1) / lengths(words)


def exact(logits: Tensor, target: Tensor) -> Tensor:
    """Return for each translation whether every word is the likeliest after those before it, bool (N,).

    A translation with an unknown word is never correct.
    """
    words = with_end(target)
    return (((logits.argmax(2) == words) | (words == PAD)) & (words != UNKNOWN)).all(1)


class TeacherForcing:
    """g∘f: the logits of the words of the reference translation, (N, T + 1, V)."""

    # The sentences of a batch are cut to the longest.
    needs_sync = True

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View) -> Any:
        """Return the logits."""
        return step.forward(Forced(view.x, view.y))


class TranslationLoss:
    """The mean cross entropy of the words of a translation."""

    # The sentences of a batch are cut to the longest.
    needs_sync = True

    def __init__(self, options: TranslationLossOptions) -> None:
        self.smoothing = options.smoothing

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each sentence; after a free translation, run the model again with the target."""
        if isinstance(output, Translation):
            return token_loss(step.forward(Forced(view.x, target)), target)
        return token_loss(output, target, self.smoothing)
