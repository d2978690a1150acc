"""Texts as tensors: rows of code points, so that an input is exactly what a reader sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustplug.api import replace_words, word_spans

END = 0
"""Code point behind the last character of a text."""
FIXED = 1 << 24
"""Added to the code points of words that no attack may change, such as the names of the classes."""
_CHARACTER = FIXED - 1


@dataclass(frozen=True)
class Passage:
    """Hold a text, and the places of its words that must stay; words are counted as in `word_spans`."""

    text: str
    fixed: frozenset[int] = frozenset()

    @property
    def words(self) -> list[str]:
        """Return the words of the text."""
        return [self.text[start:end] for start, end in word_spans(self.text)]

    def replaced(self, words: Mapping[int, str]) -> Passage:
        """Return the passage with other words at some places."""
        return Passage(replace_words(self.text, words), self.fixed)


def fixing(text: str, words: Iterable[str]) -> Passage:
    """Return a text in which some words must stay, whatever their case."""
    kept = {word.casefold() for word in words}
    spans = word_spans(text)
    return Passage(text, frozenset(at for at, (s, e) in enumerate(spans) if text[s:e].casefold() in kept))


def written(passages: Sequence[Passage], width: int) -> Tensor:
    """Return passages as rows of code points, int32 (N, width).

    Raises:
        ValueError: a text is longer than the width, or holds the character NUL.
    """
    rows = np.zeros((len(passages), width), dtype=np.int32)
    for row, passage in zip(rows, passages, strict=True):
        codes = np.frombuffer(passage.text.encode("utf-32-le", "surrogatepass"), dtype=np.int32)
        if len(codes) > width or not codes.all():
            raise ValueError(f"a text of {len(codes)} characters does not fit into {width}, or holds NUL")
        row[: len(codes)] = codes
        if passage.fixed:
            spans = word_spans(passage.text)
            for place in passage.fixed:
                row[slice(*spans[place])] += FIXED
    return torch.from_numpy(rows)


def texts(x: Tensor) -> list[str]:
    """Return the texts of rows of code points (N, width).

    Raises:
        ValueError: a row holds numbers that are no characters.
    """
    rows = (x.detach() & _CHARACTER).cpu().numpy().astype("<u4")
    sizes = np.where((rows == END).any(1), (rows == END).argmax(1), rows.shape[1])
    return [
        row[:size].tobytes().decode("utf-32-le", "surrogatepass")
        for row, size in zip(rows, sizes, strict=True)
    ]


def passages(x: Tensor) -> list[Passage]:
    """Return the passages of rows of code points (N, width).

    Raises:
        ValueError: a row holds numbers that are no characters.
    """
    flags = (x.detach() >= FIXED).cpu().numpy()
    found = []
    for text, row in zip(texts(x), flags, strict=True):
        places = [at for at, (start, _) in enumerate(word_spans(text)) if row[start]] if row.any() else ()
        found.append(Passage(text, frozenset(places)))
    return found


def room(lengths: Iterable[int]) -> int:
    """Return the width of rows for texts of these lengths, with space for longer words: a quarter more."""
    longest = max(lengths, default=0)
    return longest + max(32, longest // 4)
