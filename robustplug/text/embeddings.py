"""Word embeddings that a Python package ships: no download."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..files.reading import is_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "wordllama"
FILES = ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json")
INSTALL = 'word embeddings need wordllama: pip install "robustplug[text]"'
# Mark of a piece that begins a word.
_BEGINS = "▁"


class WordEmbeddings:
    """Vectors of texts and words, the means of the vectors of their pieces.

    Args:
        table: one vector for each piece, (V, d).
        tokenizer: splits a text into pieces, whose numbers are rows of the table.
    """

    def __init__(self, table: Tensor, tokenizer: Tokenizer) -> None:
        self.table, self._tokenizer = table, tokenizer

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the mean vector of each text, of length 1: float32 (N, d); zeros for an empty text."""
        found: list[Any] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        sums = torch.zeros(len(texts), self.table.shape[1])
        for row, pieces in enumerate(found):
            # One text at a time: how it is padded in a batch must not change the last bits of its mean.
            if pieces.ids:
                sums[row] = self.table[torch.tensor(pieces.ids)].mean(0)
        return torch.nn.functional.normalize(sums, dim=1)

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Return the cosine between the texts of each pair, (N,); that of two equal texts is 1."""
        found = (self.vectors(first) * self.vectors(second)).sum(1)
        equal = [one == other for one, other in zip(first, second, strict=True)]
        return found.masked_fill(torch.tensor(equal, dtype=torch.bool), 1.0)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """Return the words of letters that are a piece of their own, in the order of their numbers."""
        return tuple(word for word, _ in self._whole)

    @functools.cached_property
    def _whole(self) -> list[tuple[str, int]]:
        pieces = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [
            (piece[1:], number) for piece, number in pieces if piece[:1] == _BEGINS and piece[1:].isalpha()
        ]

    @functools.cached_property
    def _units(self) -> Tensor:
        rows = self.table[torch.tensor([number for _, number in self._whole])]
        return torch.nn.functional.normalize(rows, dim=1)

    def neighbours(self, word: str, count: int, least: float = -1.0) -> list[tuple[str, float]]:
        """Return the nearest other words and their cosines, nearest first; a change of case is no other word.

        Args:
            word: any word; one of several pieces is their mean.
            count: largest number of words.
            least: smallest cosine.
        """
        cosines = self._units @ self.vectors([word])[0]
        values, order = cosines.sort(descending=True, stable=True)
        found: dict[str, float] = {}
        for value, place in zip(values.tolist(), order.tolist(), strict=True):
            if len(found) == count or value < least:
                break
            near = self.words[place]
            if near.casefold() != word.casefold() and near.casefold() not in map(str.casefold, found):
                found[near] = value
        return list(found.items())


@functools.cache
def word_embeddings() -> WordEmbeddings:
    """Return the embeddings in the wheel of wordllama: 32,000 pieces, 256 dimensions (MIT licence).

    The two files are read directly: wordllama's own loader asks the network for the tokenizer.

    Raises:
        ImportError: wordllama, or a release with these files, is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(INSTALL)
    weights, splitter = (Path(spec.origin).parent / name for name in FILES)
    for path in (weights, splitter):
        if not is_file(path):
            raise ImportError(f"{INSTALL}: the installed one lacks {path.name}")
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    (table,) = load_file(weights).values()
    tokenizer: Any = Tokenizer.from_file(str(splitter))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return WordEmbeddings(table.float(), tokenizer)
