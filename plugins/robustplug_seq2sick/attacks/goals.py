"""Goals of attacks on translations, and their losses (thesis §2.2 and §3.1)."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustplug.api import stream

from ..text.scores import bleu
from ..text.search import Scores
from ..text.words import PAD, SPECIALS, UNKNOWN, Words, lengths, rows_of, widened


class Goal(NamedTuple):
    """Hold the goal of an attack on each sentence.

    Attributes:
        said: the translation of the original sentence, int64 (N, T).
        keywords: words to force into the translation, int64 (N, K), padded; K = 0 without keywords.
        target: vocabulary of the translations, by which words are compared, not pieces; without one, numbers
            are words.
        known: for an untargeted attack, the translations of the data, int64 (N, T'); else None: without
            keywords, the goal is a translation that has no word of `said` in its original place.
        ceiling: for an untargeted attack, the BLEU that counts as a success, (N,).
    """

    said: Tensor
    keywords: Tensor
    target: Words | None = None
    known: Tensor | None = None
    ceiling: Tensor | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any], target: Words) -> Goal | None:
        """Return the goal that an attack stated in a view's info; None if there is no goal."""
        if "said" not in info:
            return None
        return cls(info["said"], info["keywords"], target, info.get("known"), info.get("ceiling"))

    def rows(self, keep: Tensor) -> Goal:
        """Return the goals of the selected sentences."""
        known, ceiling = (None if part is None else part[keep] for part in (self.known, self.ceiling))
        return Goal(self.said[keep], self.keywords[keep], self.target, known, ceiling)

    def watched(self) -> Tensor:
        """Return the output words whose logits a loss uses at each position, int64 (N, P, J)."""
        return self.keywords[:, None] if self.keywords.shape[1] else self.said[..., None]

    def possible(self) -> Tensor:
        """Return which sentences can be attacked.

        Those with a translation and, where they are needed, all requested keywords or a BLEU above 0.
        """
        there = lengths(self.said) > 0
        if self.ceiling is not None:
            return there & (self.ceiling > 0)
        return there & (self.keywords != PAD).all(1) if self.keywords.shape[1] else there

    def reached(self, words: Tensor) -> Tensor:
        """Return which translations, int64 (N, T'), reach the goal: bool (N,).

        Non-overlapping: no position has the same word as before. Keywords: all of them occur. Words are
        those of the text, without the punctuation around them. A translation without words reaches no goal.
        """
        there = (lengths(words) > 0) & self.possible()
        if self.ceiling is not None:
            return there & (self.merit(words) <= self.ceiling)
        if self.target is None or self.target.literal:
            return there & self._by_number(words)
        rows = zip(words.tolist(), self.said.tolist(), self.keywords.tolist(), strict=True)
        found = [self._by_text(self.target, *row) for row in rows]
        return there & torch.tensor(found, dtype=torch.bool, device=words.device)

    def merit(self, words: Tensor) -> Tensor:
        """Return how far translations are from what the attack looks for, float64 (N,): less is better.

        0 or infinity where there is a goal; else the BLEU against the data, infinity without words.
        """
        if self.ceiling is None:
            zeros = torch.zeros(len(words), dtype=torch.float64, device=words.device)
            return zeros.masked_fill(~self.reached(words), torch.inf)
        assert self.known is not None
        scores = bleu_of_rows(words, self.known, self.target or Words(()))
        return scores.masked_fill(~(self.possible() & (lengths(words) > 0)), torch.inf)

    def start(self) -> Tensor:
        """Return the merit of the translations of the original sentences, float64 (N,)."""
        return self.merit(self.said)

    def _by_number(self, words: Tensor) -> Tensor:
        said, keywords = self.said, self.keywords
        if self.target is not None:
            # Words that differ only in the punctuation around them are one word.
            table = self.target.plain.to(words.device)
            words, said, keywords = table[words], table[said], table[keywords]
        if keywords.shape[1]:
            return (words[:, :, None] == keywords[:, None]).any(1).all(1)
        width = max(words.shape[1], said.shape[1])
        said = widened(said, width)
        return ~((widened(words, width) == said) & (said != PAD)).any(1)

    @staticmethod
    def _by_text(target: Words, words: list[int], said: list[int], keywords: list[int]) -> bool:
        (own,), (before,) = rows_of([words]), rows_of([said])
        spoken = target.spoken(own)
        if keywords:
            return all(target.spoken([word])[:1] and target.spoken([word])[0] in spoken for word in keywords)
        return bool(spoken) and not any(map(operator.eq, spoken, target.spoken(before)))


def bleu_of_rows(words: Tensor, known: Tensor, target: Words) -> Tensor:
    """Return the sentence BLEU of translations (N, T) against those of the data (N, T'), float64 (N,)."""
    said = [target.text(row) for row in words.tolist()]
    data = [readable_data(target, row) for row in known.tolist()]
    scores = [bleu(*pair, target.literal) for pair in zip(said, data, strict=True)]
    return torch.tensor(scores, dtype=torch.float64, device=words.device)


def readable_data(target: Words, row: Sequence[int]) -> str:
    """Return the text of a translation of the data, whose unknown words no translation matches."""
    # <unk> in the data replaces a real word: a translation that contains <unk> has not found that word.
    return target.text(row).replace(SPECIALS[UNKNOWN], "<?>")


def non_overlapping_loss(scores: Scores, words: Tensor, said: Tensor, margin: float = 0.0) -> Tensor:
    """Return Σ_t max(−ε, z_t[s_t] − max_{y≠s_t} z_t[y]) of each sentence, (N,): Eq. 2.8.

    t runs to the end of the shorter translation; beyond it no words can coincide.

    Args:
        scores: scores of the attacked sentence, with `said` watched.
        words: its likeliest words, int64 (N, T).
        said: s, int64 (N, M).
        margin: ε ≥ 0.
    """
    width = min(words.shape[1], said.shape[1])
    s = said[:, :width]
    there = (s != PAD) & (words[:, :width] != PAD)
    here = Scores(*(part[:, :width] for part in scores))
    hinge = (here.own - here.others(s[..., None]))[..., 0].clamp_min(-margin)
    return hinge.masked_fill(~there, 0).sum(1)


def keyword_loss(
    scores: Scores, words: Tensor, keywords: Tensor, margin: float = 0.0, mask: bool = True
) -> Tensor:
    """Return Σ_i min_t m_t(max(−ε, max_{y≠k_i} z_t[y] − z_t[k_i])) of each sentence, (N,): Eq. 2.12.

    m_t keeps keyword i off positions whose likeliest word is another keyword, Eq. 2.11. Read literally,
    Eq. 2.11 would also bar a keyword from the position where it already occurs, and no loss could reach 0. A
    keyword without any free position may take every position.

    Args:
        scores: scores of the attacked sentence, with `keywords` watched; the last position of each is </s>.
        words: its likeliest words, int64 (N, T).
        keywords: k, int64 (N, K).
        margin: ε ≥ 0.
        mask: apply m; without it this is Eq. 2.10.
    """
    places = torch.arange(scores.best.shape[1], device=words.device)
    there = places <= lengths(words)[:, None]
    hinge = (scores.others(keywords[:, None]) - scores.own).clamp_min(-margin)
    hinge = hinge.masked_fill(~there[..., None], torch.inf)
    if mask:
        here = widened(words, len(places))[..., None] == keywords[:, None]
        taken = here.any(2, keepdim=True) & ~here
        free = hinge.masked_fill(taken, torch.inf)
        hinge = torch.where(free.isfinite().any(1, keepdim=True), free, hinge)
    return hinge.amin(1).sum(1)


def draw_keywords(
    said: Tensor,
    index: Tensor,
    candidates: tuple[int, ...],
    count: int,
    seed: int,
    target: Words | None = None,
) -> Tensor:
    """Draw the keywords of each sentence, int64 (N, K): distinct words that its translation lacks.

    The draw depends on seed and index alone, so that all attacks use the same keywords. Sentences with too
    few candidates are padded.

    Args:
        said: translations of the original sentences, int64 (N, T).
        index: indices of the samples, int64 (N,).
        candidates: numbers of the words to draw from.
        count: K, number of keywords of each sentence.
        seed: seed of the draw.
        target: vocabulary by whose text words are compared; None to compare numbers.
    """
    rows = []
    for own, sample in zip(rows_of(said.tolist()), index.tolist(), strict=True):
        order = torch.randperm(len(candidates), generator=stream(seed, "keywords", sample)).tolist()
        spoken = set(own) if target is None else set(target.spoken(own))
        drawn = (candidates[place] for place in order)
        fresh = (
            word for word in drawn if (word if target is None else target.text([word]).strip()) not in spoken
        )
        found = list(itertools.islice(fresh, count))
        rows.append(found + [PAD] * (count - len(found)))
    return torch.tensor(rows, dtype=torch.int64, device=said.device).view(len(said), count)
