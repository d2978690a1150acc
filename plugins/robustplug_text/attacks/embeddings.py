"""Word embeddings, which say what words mean nearly the same: those of wordllama, or those of a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robustplug.api import (
    BrokenData,
    DataMissing,
    Unreadable,
    is_file,
    open_file,
    word_embeddings,
    word_spans,
)


class Embeddings(Hashable, Protocol):
    """Vectors of words and texts; see `robustplug.api.WordEmbeddings`."""

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Return the cosine between the texts of each pair, (N,)."""
        ...

    def neighbours(self, word: str, count: int, least: float = -1.0) -> list[tuple[str, float]]:
        """Return the nearest other words and their cosines, nearest first."""
        ...


class WordVectors:
    """Vectors of lower-case words; that of a text is the mean over its words.

    Args:
        words: the words.
        table: their vectors, (V, d).
    """

    def __init__(self, words: Sequence[str], table: Tensor) -> None:
        self.words = tuple(words)
        self._places = {word: place for place, word in enumerate(self.words)}
        self._units = torch.nn.functional.normalize(table.float(), dim=1)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the mean of the unit vectors of the words of each text, of length 1; zeros without any."""
        found = torch.zeros(len(texts), self._units.shape[1])
        for row, text in zip(found, texts, strict=True):
            words = [text[start:end].lower() for start, end in word_spans(text)]
            places = [self._places[word] for word in words if word in self._places]
            if places:
                row[:] = self._units[places].mean(0)
        return torch.nn.functional.normalize(found, dim=1)

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Return the cosine between the texts of each pair, (N,); that of two equal texts is 1."""
        found = (self.vectors(first) * self.vectors(second)).sum(1)
        equal = [one == other for one, other in zip(first, second, strict=True)]
        return found.masked_fill(torch.tensor(equal, dtype=torch.bool), 1.0)

    def neighbours(self, word: str, count: int, least: float = -1.0) -> list[tuple[str, float]]:
        """Return the nearest other words and their cosines, nearest first; none for an unknown word."""
        place = self._places.get(word.lower())
        if place is None:
            return []
        cosines = self._units @ self._units[place]
        cosines[place] = -torch.inf
        values, order = cosines.sort(descending=True, stable=True)
        pairs = zip(values[:count].tolist(), order[:count].tolist(), strict=True)
        return [(self.words[near], value) for value, near in pairs if value >= least]


@functools.lru_cache(maxsize=4)
def embeddings(path: str | None) -> Embeddings:
    """Return the embeddings of a file in word2vec's text format, or those of wordllama for None.

    Raises:
        ImportError: wordllama is not installed.
        DataMissing: there is no such file.
        BrokenData: a line of it is not a word and its numbers.
    """
    return word_embeddings() if path is None else read_vectors(Path(path).expanduser())


def read_vectors(path: Path) -> WordVectors:
    """Read a file with a word and its numbers in each line, and perhaps their counts in the first.

    Of two spellings that differ in case alone, the first counts.

    Raises:
        DataMissing: there is no such file.
        BrokenData: a line is not a word and its numbers, as many as in the lines before.
    """
    if not is_file(path):
        raise DataMissing(f"there is no file {path.absolute()} of word embeddings")
    words: dict[str, None] = {}
    rows: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                word, *cells = line.rstrip().split(" ")
                if number == 1 and len(cells) == 1:
                    continue
                row = _numbers(cells)
                if row is None or (rows and len(row) != len(rows[0])):
                    expected = f"{len(rows[0])} finite numbers" if rows else "its finite numbers"
                    raise BrokenData(f"{path}:{number}: must hold a word and {expected}, separated by spaces")
                if word.lower() not in words:
                    words[word.lower()] = None
                    rows.append(row)
    except (UnicodeDecodeError, OSError, Unreadable) as error:
        raise BrokenData(f"{path} cannot be read as word embeddings: {error}") from error
    if not rows:
        raise BrokenData(f"{path} holds no word embeddings")
    return WordVectors(tuple(words), torch.from_numpy(np.stack(rows)))


def _numbers(cells: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    try:
        row = np.array(cells, dtype=np.float32)
    except ValueError:
        return None
    return row if len(row) and bool(np.isfinite(row).all()) else None
