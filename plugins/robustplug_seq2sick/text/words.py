"""Vocabularies, and sentences as rows of whole numbers: words first, then padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
# What pieces that begin a word begin with: those of sentencepiece, and of byte-level BPE.
MARKS = ("▁", "Ġ")


def joined(words: Sequence[str]) -> str:
    """Return words with spaces between them."""
    return " ".join(words)


@dataclass(frozen=True)
class Words:
    """Hold a vocabulary: the special words, then all others.

    Attributes:
        all: every word or piece, by its number.
        pieces: pieces of words, of which one of MARKS begins a word.
        split, join: turn text into words or pieces, and these into text.
        forbidden: other numbers that no sentence may be given, such as the special words of a tokenizer.
    """

    all: tuple[str, ...]
    pieces: bool = False
    split: Callable[[str], Sequence[str]] = field(default=str.split, repr=False, compare=False)
    join: Callable[[Sequence[str]], str] = field(default=joined, repr=False, compare=False)
    forbidden: frozenset[int] = frozenset()
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A text may hold "<pad>" or "</s>" as a word: it is no special word there.
        own = list(enumerate(self.all))[len(SPECIALS) :]
        object.__setattr__(self, "_numbers", {word: number for number, word in own})

    def __len__(self) -> int:
        return len(self.all)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's words; those that are not known become <unk>."""
        return [self._numbers.get(word, UNKNOWN) for word in self.split(text)]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words of numbers, up to the first padding."""
        found = []
        for number in numbers:
            if number == PAD:
                break
            found.append(self.all[number])
        return found

    def text(self, numbers: Iterable[int]) -> str:
        """Return the text of numbers, up to the first padding."""
        return self.join(self.decode(numbers))

    def whole(self, number: int) -> bool:
        """Tell whether a word, or a piece that begins one, has this number."""
        return not self.pieces or self.all[number].startswith(MARKS)

    def joins(self) -> Tensor | None:
        """Tell which pieces go on with the word before them, bool (V,); None if there are no pieces."""
        if not self.pieces:
            return None
        inside = [not word.startswith(MARKS) and word[:1].isalnum() for word in self.all]
        return torch.tensor(inside)

    def usable(self) -> Tensor:
        """Tell which words may stand in a sentence: bool (V,)."""
        found = torch.ones(len(self), dtype=torch.bool)
        found[[*range(len(SPECIALS)), *self.forbidden]] = False
        return found


def word_vocabulary(lines: Iterable[Sequence[str]], threshold: int) -> Words:
    """Return the words that occur more than `threshold` times, most frequent first, then by the alphabet.

    Raises:
        ValueError: there are none.
    """
    counts = Counter(word for line in lines for word in line if word not in SPECIALS)
    kept = sorted((-count, word) for word, count in counts.items() if count > threshold)
    if not kept:
        raise ValueError(
            f"no word of the training text occurs more than {threshold} times: lower unknown_below"
        )
    return Words((*SPECIALS, *(word for _, word in kept)))


def lengths(rows: Tensor) -> Tensor:
    """Return how many words each row of (N, T) has: (N,)."""
    return (rows != PAD).sum(1)


def padded(sentences: Sequence[Sequence[int]], width: int | None = None) -> Tensor:
    """Return sentences as rows of one width, at least 1: int64 (N, T)."""
    width = max([1, *map(len, sentences)]) if width is None else width
    rows = [[*sentence, *[PAD] * (width - len(sentence))] for sentence in sentences]
    return torch.tensor(rows, dtype=torch.int64).view(-1, width)


def widened(rows: Tensor, width: int) -> Tensor:
    """Return rows (N, T) with padding up to a width."""
    return torch.nn.functional.pad(rows, (0, max(0, width - rows.shape[1])), value=PAD)


def trimmed(rows: Tensor) -> Tensor:
    """Cut the padding that all rows share, but leave one column."""
    longest = int(lengths(rows).max()) if len(rows) else 0
    return rows[:, : max(1, longest)]
