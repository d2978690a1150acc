"""The layout of a negotiation as one row of whole numbers.

A row x of int64 is the view of one of the two sides, "own":

    x[0:3]    number of pieces of each item
    x[3:6]    value of each item to the own side
    x[6:9]    value of each item to the other side; the own side does not use them
    x[9:12]   what the other side takes; or -1 each: whatever the own side leaves
    x[12:]    the words of the dialogue, then padding; empty before the first turn

A dialogue consists of turns: the speaker (YOU: is the own side), then words, then <eos>. The last turn is
the speaker and <selection>.

An agent of the user's own may say words outside the vocabulary. Their numbers begin at FREE, whatever the
vocabulary is; agents that know the vocabulary alone read them as <unk>.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

ITEMS = ("book", "hat", "ball")
COUNTS, OWN, OTHER, CLAIM = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
HEAD = 12

PAD, EOS, SELECTION, YOU, THEM, UNKNOWN = range(6)
SPECIALS = ("<pad>", "<eos>", "<selection>", "YOU:", "THEM:", "<unk>")
# Outcomes of one item: 0 to 4 pieces of it, or another ending of the dialogue.
MOST = 4
DISAGREE, NO_AGREEMENT, DISCONNECT = range(MOST + 1, MOST + 4)
OUTCOMES = MOST + 4
ENDINGS = {"<disagree>": DISAGREE, "<no_agreement>": NO_AGREEMENT, "<disconnect>": DISCONNECT}

FREE = 1 << 20
"""Number of the first word outside every vocabulary."""


class _Lexicon:
    """Number the words outside the vocabularies in the order in which they are met, for this process."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []
        # Agents that wait for a service may speak in several threads.
        self._lock = threading.Lock()

    def number(self, word: str) -> int:
        with self._lock:
            if word not in self._numbers:
                self._numbers[word] = FREE + len(self._words)
                self._words.append(word)
            return self._numbers[word]

    def word(self, number: int) -> str:
        return self._words[number - FREE]


_LEXICON = _Lexicon()


@dataclass(frozen=True)
class Words:
    """Hold a vocabulary: the special words, then all others.

    Attributes:
        all: all words; a word's number is its position.
    """

    all: tuple[str, ...]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {word: number for number, word in enumerate(self.all)})

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        """Build a vocabulary from the special words and these words."""
        return cls((*SPECIALS, *(word for word in words if word not in SPECIALS)))

    def __len__(self) -> int:
        return len(self.all)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Return the numbers of words; unknown words become <unk>."""
        return [self._numbers.get(word, UNKNOWN) for word in words]

    def spell(self, words: Iterable[str]) -> list[int]:
        """Return the numbers of words; unknown words keep numbers of their own, from FREE on."""
        return [self._numbers[word] if word in self._numbers else _LEXICON.number(word) for word in words]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words with these numbers."""
        return [self.all[number] if number < FREE else _LEXICON.word(number) for number in numbers]


def known(words: Tensor) -> Tensor:
    """Return words, int64 of any shape, as a vocabulary has them: <unk> for those outside it."""
    return words.masked_fill(words >= FREE, UNKNOWN)


def swapped(x: Tensor) -> Tensor:
    """Return rows (N, 12 + T) as the other side sees them; claims are dropped."""
    words = x[:, HEAD:]
    turned = torch.where(words == YOU, THEM, torch.where(words == THEM, YOU, words))
    return torch.cat([x[:, COUNTS], x[:, OTHER], x[:, OWN], torch.full_like(x[:, CLAIM], -1), turned], 1)


def lengths(x: Tensor) -> Tensor:
    """Return the number of words of each dialogue of (N, 12 + T), without the padding at the end: (N,)."""
    words = x[:, HEAD:]
    if not words.shape[1]:
        return x.new_zeros(len(x))
    places = torch.arange(1, words.shape[1] + 1, device=x.device)
    return torch.where(words != PAD, places, 0).amax(1)


def trimmed(x: Tensor) -> Tensor:
    """Cut the padding that all rows share."""
    longest = int(lengths(x).max()) if len(x) else 0
    return x[:, : HEAD + longest]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate rows of different widths, padding the narrower ones."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=PAD) for part in parts])


def turns(words: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Split the words of one dialogue into (YOU or THEM, words) for each turn; <eos> is left out."""
    found: list[tuple[int, list[int]]] = []
    for word in words:
        if word == PAD:
            break
        if word in (YOU, THEM):
            found.append((word, []))
        elif word != EOS and found:
            found[-1][1].append(word)
    return found
