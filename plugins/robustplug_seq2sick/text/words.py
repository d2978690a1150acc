"""Vocabularies, and sentences as rows of integers: words first, then padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
# Prefixes of pieces that begin a word: of sentencepiece, and of byte-level BPE.
MARKS = ("▁", "Ġ")


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

    def __post_init__(self) -> None:
        # A text may contain "<pad>" or "</s>" as a word: it is not a special word there.
        own = list(enumerate(self.all))[len(SPECIALS) :]
        object.__setattr__(self, "_numbers", {word: number for number, word in own})

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

    def whole(self, number: int) -> bool:
        """Return whether the number is that of a word, or of a piece that begins one."""
        return not self.pieces or self.all[number].startswith(MARKS)

    def joins(self) -> Tensor | None:
        """Return which pieces continue the word before them, bool (V,); None if there are no pieces."""
        if not self.pieces:
            return None
        inside = [not word.startswith(MARKS) and word[:1].isalnum() for word in self.all]
        return torch.tensor(inside)

    def usable(self) -> Tensor:
        """Return which words may occur in a sentence, bool (V,)."""
        found = torch.ones(len(self), dtype=torch.bool)
        found[[*range(len(SPECIALS)), *self.forbidden]] = False
        return found


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
