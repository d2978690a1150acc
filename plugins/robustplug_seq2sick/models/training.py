"""Slots for training translation models, and the vicinity of attacks on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Batch, Refused, Step, View

from ..text.search import Translation
from ..text.words import END, PAD, UNKNOWN, lengths, trimmed
from .lstm import Forced

if TYPE_CHECKING:
    from ..options import ReplacementOptions, TranslationLossOptions


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


class WordReplacement:
    """Sentences in which words were replaced by other words of the vocabulary, one for one.

    The distance is the number of positions that differ.
    """

    norm: float | None = None

    def __init__(self, options: ReplacementOptions) -> None:
        self.eps = options.eps

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sentence whether at most `radius` words were replaced, none by a special word."""
        if x.shape != origin.shape:
            raise Refused("an attack must return sentences of the shape that it received")
        changed = x != origin
        fine = ~changed | ((x >= 0) & (x > END) & (origin != PAD))
        return fine.all(1) & (changed.sum(1) <= radius)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the sentences with only the first `radius` legal replacements of each."""
        changed = (x != origin) & (x > END) & (origin != PAD)
        kept = changed & (changed.long().cumsum(1) <= radius[:, None])
        return torch.where(kept, x, origin)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Refuse: a sentence has no direction of steepest ascent.

        Raises:
            Refused: always.
        """
        raise Refused("sentences have no gradient direction: use an attack for sentences, such as seq2sick")

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Refuse: the vicinity has no vocabulary to draw from.

        Raises:
            Refused: always.
        """
        raise Refused("sentences have no random start: use an attack for sentences, such as seq2sick")
