"""Vocabularies, and sentences as rows of integers: words first, then padding."""

from __future__ import annotations

import functools
import itertools
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from robustplug.api import words_changed

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
# Prefixes of pieces that begin a word: of sentencepiece, and of byte-level BPE.
MARKS = ("▁", "Ġ")
# Around a word these do not make another word of it.
_AROUND = string.punctuation + "„“”‚‘’«»…–—¿¡"
# A search asks for the same sentences again and again.
_KEPT = 2**16


def joined(words: Sequence[str]) -> str:
    """Return words joined by spaces."""
    return " ".join(words)


@dataclass(frozen=True)
class Words:
    """Hold a vocabulary: the special words, then all others.

    Attributes:
        all: every word or piece, in the order of their numbers.
        pieces: whether the entries are pieces of words; a piece that begins a word starts with one of MARKS.
        split, join: functions from text to words or pieces, and back.
        forbidden: further numbers that no sentence may contain, such as the special words of a tokenizer.
    """

    all: tuple[str, ...]
    pieces: bool = False
    split: Callable[[str], Sequence[str]] = field(default=str.split, repr=False, compare=False)
    join: Callable[[Sequence[str]], str] = field(default=joined, repr=False, compare=False)
    forbidden: frozenset[int] = frozenset()
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)
    _settled: dict[tuple[int, ...], tuple[int, ...]] = field(init=False, repr=False, compare=False)
    _spoken: dict[tuple[int, ...], tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A text may contain "<pad>" or "</s>" as a word: it is not a special word there.
        own = list(enumerate(self.all))[len(SPECIALS) :]
        object.__setattr__(self, "_numbers", {word: number for number, word in own})
        object.__setattr__(self, "_settled", {})
        object.__setattr__(self, "_spoken", {})

    def __len__(self) -> int:
        return len(self.all)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's words; unknown words become <unk>."""
        return [self._numbers.get(word, UNKNOWN) for word in self.split(text)]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words with these numbers, up to the first padding."""
        found = []
        for number in numbers:
            if number == PAD:
                break
            found.append(self.all[number])
        return found

    def text(self, numbers: Iterable[int]) -> str:
        """Return the text of the words with these numbers, up to the first padding."""
        return self.join(self.decode(numbers))

    @property
    def literal(self) -> bool:
        """Return whether the text of numbers always has these numbers: words between spaces."""
        return self.split is str.split and self.join is joined

    def settled(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Return the numbers of the text of the words with these numbers: what a model is really asked.

        Pieces can be put together otherwise than they were: their text may have other pieces.
        """
        key = tuple(numbers)
        if PAD in key:
            key = key[: key.index(PAD)]
        if self.literal:
            return key
        return _known(self._settled, key, lambda: tuple(self.encode(self.text(key))))

    def spoken(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Return the words of the text, without punctuation around them; punctuation alone is a word."""
        key = tuple(numbers)
        return _known(self._spoken, key, lambda: tuple(w.strip(_AROUND) or w for w in self.text(key).split()))

    def changed(self, before: Sequence[int], after: Sequence[int]) -> int:
        """Return how many words, not pieces, differ between two sentences."""
        if self.literal and len(before) == len(after):
            return sum(first != second for first, second in zip(before, after, strict=True))
        return words_changed(self.text(before), self.text(after))

    def whole(self, number: int) -> bool:
        """Return whether the number is that of a word, or of a piece that begins one."""
        return not self.pieces or self.all[number].startswith(MARKS)

    def begins(self) -> Tensor:
        """Return which entries begin a word, bool (V,)."""
        return torch.tensor([self.whole(number) for number in range(len(self))], dtype=torch.bool)

    def joins(self) -> Tensor | None:
        """Return which pieces continue the word before them, bool (V,); None if there are no pieces."""
        if not self.pieces:
            return None
        inside = [not word.startswith(MARKS) and word[:1].isalnum() for word in self.all]
        return torch.tensor(inside)

    @functools.cached_property
    def plain(self) -> Tensor:
        """Return for each number that of the first word that differs only in punctuation around it, (V,)."""
        first: dict[str, int] = {}
        bare = [word.strip(_AROUND) or word for word in self.all]
        found = [
            number if number < len(SPECIALS) else first.setdefault(bare[number], number)
            for number in range(len(self))
        ]
        return torch.tensor(found, dtype=torch.int64)

    @functools.cached_property
    def special(self) -> frozenset[int]:
        """Return the numbers that no attack may put into a sentence."""
        return self.forbidden | frozenset(range(len(SPECIALS)))

    def usable(self) -> Tensor:
        """Return which words may occur in a sentence, bool (V,)."""
        found = torch.ones(len(self), dtype=torch.bool)
        found[list(self.special)] = False
        return found


Kept = TypeVar("Kept")


def _known(table: dict[tuple[int, ...], Kept], key: tuple[int, ...], make: Callable[[], Kept]) -> Kept:
    if key not in table:
        if len(table) >= _KEPT:
            table.clear()
        table[key] = make()
    return table[key]


def word_vocabulary(lines: Iterable[Sequence[str]], threshold: int) -> Words:
    """Return the words that occur more than `threshold` times, most frequent first, then alphabetically.

    Raises:
        ValueError: no word occurs that often.
    """
    counts = Counter(word for line in lines for word in line if word not in SPECIALS)
    kept = sorted((-count, word) for word, count in counts.items() if count > threshold)
    if not kept:
        raise ValueError(
            f"no word of the training text occurs more than {threshold} times: lower unknown_below"
        )
    return Words((*SPECIALS, *(word for _, word in kept)))


def lengths(rows: Tensor) -> Tensor:
    """Return the number of words of each row of (N, T): (N,)."""
    return (rows != PAD).sum(1)


def rows_of(rows: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return rows of numbers without what follows their first padding."""
    return [list(itertools.takewhile(lambda number: number != PAD, row)) for row in rows]


def padded(sentences: Sequence[Sequence[int]], width: int | None = None) -> Tensor:
    """Return sentences as rows of one width, at least 1: int64 (N, T)."""
    width = max([1, *map(len, sentences)]) if width is None else width
    rows = [[*sentence, *[PAD] * (width - len(sentence))] for sentence in sentences]
    return torch.tensor(rows, dtype=torch.int64).view(-1, width)


def widened(rows: Tensor, width: int) -> Tensor:
    """Return rows (N, T), padded to a width."""
    return torch.nn.functional.pad(rows, (0, max(0, width - rows.shape[1])), value=PAD)


def trimmed(rows: Tensor) -> Tensor:
    """Cut the padding that all rows share, but keep at least one column."""
    longest = int(lengths(rows).max()) if len(rows) else 0
    return rows[:, : max(1, longest)]
