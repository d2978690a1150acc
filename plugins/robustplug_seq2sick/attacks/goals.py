"""Goals of attacks on translations, and their losses (thesis §2.2 and §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustplug.api import stream

from ..text.search import Scores
from ..text.words import PAD, Words, lengths, widened


class Goal(NamedTuple):
    """Hold the goal of an attack on each sentence.

    Attributes:
        said: the translation of the original sentence, int64 (N, T).
        keywords: words to force into the translation, int64 (N, K), padded; K = 0 for a non-overlapping
            translation, which has no word of `said` in its original place.
        joins: pieces that continue the word before them, bool (V,); None if there are no pieces.
    """

    said: Tensor
    keywords: Tensor
    joins: Tensor | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any], target: Words) -> Goal | None:
        """Return the goal that an attack stated in a view's info; None if there is no goal."""
        if "said" not in info:
            return None
        joins = target.joins()
        return cls(info["said"], info["keywords"], None if joins is None else joins.to(info["said"].device))

    def rows(self, keep: Tensor) -> Goal:
        """Return the goals of the selected sentences."""
        return Goal(self.said[keep], self.keywords[keep], self.joins)

    def watched(self) -> Tensor:
        """Return the output words whose logits a loss uses at each position, int64 (N, P, J)."""
        return self.keywords[:, None] if self.keywords.shape[1] else self.said[..., None]

    def possible(self) -> Tensor:
        """Return which sentences can be attacked: those with a translation and all requested keywords."""
        there = lengths(self.said) > 0
        return there & (self.keywords != PAD).all(1) if self.keywords.shape[1] else there

    def reached(self, words: Tensor) -> Tensor:
        """Return which translations, int64 (N, T'), reach the goal: bool (N,).

        Non-overlapping: no position has the same word as before. Keywords: all of them occur, as whole
        words: a piece does not count if the next piece continues its word. A translation without words
        reaches no goal.
        """
        there = (lengths(words) > 0) & self.possible()
        if self.keywords.shape[1]:
            found = words[:, :, None] == self.keywords[:, None]
            if self.joins is not None:
                found &= ~self.joins[widened(words, words.shape[1] + 1)[:, 1:], None]
            return there & found.any(1).all(1)
        width = max(words.shape[1], self.said.shape[1])
        said = widened(self.said, width)
        return there & ~((widened(words, width) == said) & (said != PAD)).any(1)


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


def draw_keywords(said: Tensor, index: Tensor, candidates: tuple[int, ...], count: int, seed: int) -> Tensor:
    """Draw the keywords of each sentence, int64 (N, K): distinct words that its translation lacks.

    The draw depends on seed and index alone, so that all attacks use the same keywords. Sentences with too
    few candidates are padded.

    Args:
        said: translations of the original sentences, int64 (N, T).
        index: indices of the samples, int64 (N,).
        candidates: numbers of the words to draw from.
        count: K, number of keywords of each sentence.
        seed: seed of the draw.
    """
    rows = []
    for own, sample in zip(said.tolist(), index.tolist(), strict=True):
        order = torch.randperm(len(candidates), generator=stream(seed, "keywords", sample)).tolist()
        found = [candidates[place] for place in order if candidates[place] not in own][:count]
        rows.append(found + [PAD] * (count - len(found)))
    return torch.tensor(rows, dtype=torch.int64, device=said.device).view(len(said), count)
