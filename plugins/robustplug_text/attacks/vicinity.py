"""The threat model of text: which words may become which others, and how many of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from robustplug.api import Batch, Refused, Step, word_spans

from ..data.passages import Passage, passages, written
from .embeddings import Embeddings, embeddings

if TYPE_CHECKING:
    from ..options import SubstitutionOptions

ROUNDING = 1e-6
"""Cosines are compared up to this."""


class WordSubstitution:
    """The texts in which some words became similar ones; everything between the words stays.

    A word may change unless it is marked as fixed, is a stop word, or has no letters. The new one must be one
    word too. Each pair, and the two texts, must be similar by the cosine of their embeddings. Words are
    compared in lower case: an attack may not gain by writing a word in capitals, which counts as a change.

    Args:
        options: options of the component.
    """

    norm: float | None = None
    # A text is read on the CPU.
    needs_sync = True

    def __init__(self, options: SubstitutionOptions) -> None:
        self.eps = options.eps
        self.options = options

    @property
    def embeddings(self) -> Embeddings:
        """Return the embeddings that measure similarity.

        Raises:
            Refused: they cannot be loaded.
        """
        try:
            return embeddings(self.options.embeddings)
        except (ImportError, ValueError) as error:
            raise Refused(str(error)) from error

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def limit(self, passage: Passage, radius: float) -> int:
        """Return how many words of a text may change: at most `radius`, and at most the share, rounded up."""
        return min(math.floor(min(radius, 1e9)), math.ceil(self.options.share * len(passage.words)))

    def changeable(self, passage: Passage) -> list[int]:
        """Return the places of the words that may change."""
        return [
            place
            for place, word in enumerate(passage.words)
            if place not in passage.fixed and self._may_change(word)
        ]

    def _may_change(self, word: str) -> bool:
        stays = self.options.stop_words and word.lower() in ENGLISH_STOP_WORDS
        return not stays and any(letter.isalpha() for letter in word)

    def candidates(self, word: str, count: int) -> list[str]:
        """Return at most `count` words that may stand for a word, most similar first, in its case."""
        return [
            in_case_of(near, word) for near in _nearest(self.embeddings, word.lower(), count, self._least)
        ]

    @property
    def _least(self) -> float:
        return self.options.similarity - ROUNDING

    def close(self, passage: Passage, others: Sequence[Passage]) -> Tensor:
        """Return the cosine between a text and each of some others, (N,)."""
        return self.embeddings.similarity([passage.text] * len(others), [other.text for other in others])

    def close_enough(self, cosines: Tensor) -> Tensor:
        """Return which cosines of whole texts the threat model allows, bool (N,)."""
        return cosines >= self.options.sentence - ROUNDING

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each row of code points (N, C) whether its text is legal, bool (N,)."""
        if x.shape != origin.shape or x.dtype != origin.dtype:
            raise Refused("an attack must return texts in the shape and type that it received")
        legal = [
            torch.equal(row, own) or self._legal(row, own, limit)
            for row, own, limit in zip(x, origin, radius.tolist(), strict=True)
        ]
        return torch.tensor(legal, dtype=torch.bool, device=x.device)

    def _legal(self, row: Tensor, own: Tensor, radius: float) -> bool:
        (before,) = passages(own[None])
        try:
            (after,) = passages(row[None])
            if not torch.equal(written([after], len(row))[0], row.cpu()):
                return False
        except ValueError:  # no characters
            return False
        changed = self._changes(before, after)
        if changed is None or len(changed) > self.limit(before, radius):
            return False
        return self._all_similar(before, changed) and bool(self.close_enough(self.close(before, [after])))

    def _changes(self, before: Passage, after: Passage) -> dict[int, str] | None:
        """Return the new words by their places; None if anything else differs."""
        old, new = before.words, after.words
        if len(old) != len(new) or before.fixed != after.fixed:
            return None
        changed = {place: new[place] for place in range(len(old)) if old[place] != new[place]}
        return changed if before.replaced(changed).text == after.text else None

    def _all_similar(self, before: Passage, changed: Mapping[int, str]) -> bool:
        words, allowed = before.words, set(self.changeable(before))
        if not changed.keys() <= allowed:
            return False
        pairs = [(words[place].lower(), word.lower()) for place, word in changed.items()]
        first, second = [one for one, _ in pairs], [other for _, other in pairs]
        return bool((self.embeddings.similarity(first, second) >= self._least).all())

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return the texts with only the first legal changes of each, as many as the radius allows.

        A text that differs in more than single words, or whose meaning leaves the bound, becomes its origin.
        """
        projected = origin.clone()
        for at, limit in enumerate(radius.tolist()):
            (before,) = passages(origin[at : at + 1])
            try:
                changed = self._changes(before, passages(x[at : at + 1])[0]) or {}
            except ValueError:  # no characters
                continue
            kept = [place for place, word in changed.items() if self._all_similar(before, {place: word})]
            allowed = {place: changed[place] for place in kept[: self.limit(before, limit)]}
            row = written([before.replaced(allowed)], origin.shape[1]).to(origin)
            if self._legal(row[0], origin[at], limit):
                projected[at] = row[0]
        return projected

    def steepest(self, gradient: Tensor) -> Tensor:
        """Refuse: a text has no direction of steepest ascent.

        Raises:
            Refused: always.
        """
        raise Refused("texts have no gradient direction: use an attack on texts, such as textfooler")

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Refuse: words are chosen by an attack.

        Raises:
            Refused: always.
        """
        raise Refused("texts have no random start: use an attack on texts, such as textfooler")


def in_case_of(word: str, other: str) -> str:
    """Return a lower-case word in the case of another: lower, Title or CAPITALS."""
    if other.isupper() and len(other) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if other[:1].isupper() else word


@functools.lru_cache(maxsize=2**16)
def _nearest(known: Embeddings, word: str, count: int, least: float) -> tuple[str, ...]:
    """Return the nearest words that are one word each, in lower case, by the cosine in lower case."""
    # Neighbours are found in any case, and some fall out.
    near = dict.fromkeys(found.lower() for found, _ in known.neighbours(word, 2 * count, least - 0.1))
    words = [found for found in near if found != word and word_spans(found) == [(0, len(found))]]
    if not words:
        return ()
    values, order = known.similarity([word] * len(words), words).sort(descending=True, stable=True)
    ranked = [words[at] for at, value in zip(order.tolist(), values.tolist(), strict=True) if value >= least]
    return tuple(ranked[:count])
