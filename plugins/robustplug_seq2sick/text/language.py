"""A trigram language model of the source, for the perplexity of attacked sentences."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import torch
from torch import Tensor

from .words import BEGIN, END, PAD

DISCOUNT = 0.75


class Trigrams:
    """Interpolated Kneser-Ney trigrams with one absolute discount (Chen & Goodman 1999 §2.7, §3).

    Args:
        sentences: int64 (N, T), padded.
        size: V; unseen words receive probability from the uniform distribution.
    """

    def __init__(self, sentences: Tensor, size: int) -> None:
        trigrams: Counter[tuple[int, ...]] = Counter()
        for row in sentences.tolist():
            words = _framed(row)
            trigrams.update(zip(words, words[1:], words[2:], strict=False))
        bigrams: Counter[tuple[int, ...]] = Counter(gram[1:] for gram in trigrams)
        unigrams: Counter[tuple[int, ...]] = Counter(gram[1:] for gram in bigrams)
        # <pad> and <s> never follow anything.
        self._floor = 1 / (size - 2)
        self._levels = [_Level(counts) for counts in (unigrams, bigrams, trigrams)]

    def probability(self, first: int, second: int, third: int) -> float:
        """Return p(third | first, second)."""
        found = self._floor
        for level, gram in zip(
            self._levels, ((third,), (second, third), (first, second, third)), strict=True
        ):
            found = level.probability(gram, found)
        return found

    def surprise(self, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Return −Σ log p of the words of each sentence and of </s>, and their number, float64 (N,) each.

        Perplexity is exp(Σ surprise / Σ words).
        """
        sums, sizes = [], []
        for row in sentences.tolist():
            words = _framed(row)
            grams = list(zip(words, words[1:], words[2:], strict=False))
            sums.append(-sum(math.log(self.probability(*gram)) for gram in grams))
            sizes.append(float(len(grams)))
        return torch.tensor(sums, dtype=torch.float64), torch.tensor(sizes, dtype=torch.float64)


class _Level:
    """The n-grams of one order: counts or, below the highest order, numbers of distinct preceding words."""

    def __init__(self, counts: Counter[tuple[int, ...]]) -> None:
        self._counts = counts
        self._totals: dict[tuple[int, ...], int] = defaultdict(int)
        self._kinds: dict[tuple[int, ...], int] = defaultdict(int)
        for gram, count in counts.items():
            self._totals[gram[:-1]] += count
            self._kinds[gram[:-1]] += 1

    def probability(self, gram: tuple[int, ...], lower: float) -> float:
        context = gram[:-1]
        total = self._totals.get(context, 0)
        if not total:
            return lower
        own = max(self._counts[gram] - DISCOUNT, 0.0)
        return (own + DISCOUNT * self._kinds[context] * lower) / total


def _framed(row: list[int]) -> list[int]:
    return [BEGIN, BEGIN, *(word for word in row if word != PAD), END]
