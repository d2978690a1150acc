"""The threat model of attacks on sentences: which texts may replace a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustplug.api import Batch, Refused, Step, TaskInfo

from ..text.words import END, PAD, Words, rows_of
from .constraints import Constraints

if TYPE_CHECKING:
    from ..options import ReplacementOptions


class WordReplacement:
    """Sentences in which words were replaced by other words of the vocabulary.

    The distance is the number of words that differ. In a vocabulary of pieces, a sentence is legal only if
    the tokenizer makes the same pieces of its text, and words may also merge or part: each replaced, inserted
    and deleted word counts. Further constraints are options.
    """

    norm: float | None = None

    def __init__(self, options: ReplacementOptions) -> None:
        self.eps = options.eps
        self._constraints = Constraints(options)
        self._source: Words | None = None

    def inform(self, info: TaskInfo) -> None:
        """Take the vocabulary of the task's sentences; without one, sentences are rows of whole words."""
        source = getattr(info, "source", None)
        self._source = source if isinstance(source, Words) else None

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sentence whether it is legal: bool (N,); an unchanged sentence always is.

        Raises:
            Refused: the attack changed the shape, or a constraint cannot be checked.
        """
        if x.shape != origin.shape:
            raise Refused("an attack must return sentences of the shape that it received")
        changed = x != origin
        source = self._source
        if source is None or source.literal:
            fine = (~changed | ((x > END) & (origin != PAD))).all(1) & (changed.sum(1) <= radius)
        else:
            rows = zip(x.tolist(), origin.tolist(), radius.tolist(), strict=True)
            fine = torch.tensor([legal_text(source, *row) for row in rows], dtype=torch.bool, device=x.device)
        fine |= ~changed.any(1)
        return fine if source is None else self._constrained(source, x, origin, fine)

    def _constrained(self, source: Words, x: Tensor, origin: Tensor, fine: Tensor) -> Tensor:
        rows = (fine & (x != origin).any(1)).nonzero()[:, 0]
        before, after = ([source.text(row) for row in part[rows].tolist()] for part in (origin, x))
        try:
            kept = self._constraints.allow(before, after)
        except (ImportError, ValueError) as error:
            raise Refused(str(error)) from error
        return fine.index_put((rows,), kept.to(fine.device))

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the sentences that are legal, of others only the first `radius` legal replacements.

        In a vocabulary of pieces, what is not legal becomes the original.
        """
        if self._source is None or self._source.literal:
            changed = (x != origin) & (x > END) & (origin != PAD)
            kept = changed & (changed.long().cumsum(1) <= radius[:, None])
            x = torch.where(kept, x, origin)
        return torch.where(self.contains(x, origin, radius)[:, None], x, origin)

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


def legal_text(source: Words, x: Sequence[int], origin: Sequence[int], radius: float) -> bool:
    """Return whether a row is what the tokenizer makes of its text, without new special words, in reach.

    Args:
        source: the vocabulary.
        x, origin: rows of one width, padded at the end.
        radius: largest number of words that differ.
    """
    (before,), (after,) = rows_of([origin]), rows_of([x])
    if any(x[len(after) :]) or not all(0 <= number < len(source) for number in after):
        return False
    new = set(after) - set(before)
    if any(number in source.special for number in new) or source.settled(after) != tuple(after):
        return False
    return source.changed(before, after) <= radius
