"""Words as a model reads them, and requests that a model of text answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

PAD, UNKNOWN = 0, 1
"""Numbers of the padding, and of all words that the vocabulary lacks."""
# Words as in `robustplug.api.word_spans`, and punctuation marks one by one.
_TOKEN = re.compile(r"[^\W_]+(?:['’\-_*@][^\W_]+)*|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in lower case."""
    return _TOKEN.findall(text.lower())


@dataclass(frozen=True)
class Shifted:
    """Request the logits of texts whose embeddings are shifted.

    Attributes:
        x: rows of code points (N, C).
        shift: what is added to the embeddings, (N, S, d); see `TextModel`.
    """

    x: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.x)


class TextModel(Protocol):
    """A classifier of text whose embeddings can be shifted.

    Called with rows of code points (N, C), or a Shifted, it returns logits (N, K).
    """

    @property
    def width(self) -> int:
        """Return d, the size of an embedding."""
        ...

    def there(self, x: Tensor) -> Tensor:
        """Return which places of the S tokens hold one, bool (N, S), for rows of code points (N, C)."""
        ...


class Numbers:
    """Turn texts into rows of word numbers.

    Args:
        vocabulary: the known words, in lower case; number 2 is the first.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._known = {word: number for number, word in enumerate(vocabulary, 2)}

    def __len__(self) -> int:
        return len(self._known) + 2

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Return the numbers of the words of each text, padded at the end, int64 (N, S)."""
        found = [[self._known.get(token, UNKNOWN) for token in tokens(text)] for text in texts]
        width = max([1, *map(len, found)])
        return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in found]).view(-1, width)


def vocabulary_bytes(vocabulary: Sequence[str]) -> Tensor:
    """Return a vocabulary as a tensor, uint8, to be stored with weights and compared on loading."""
    return torch.frombuffer(bytearray("\n".join(["", *vocabulary]).encode()), dtype=torch.uint8)


OTHER_WORDS = (
    "the weights belong to another vocabulary: the training texts or the options of the task differ from "
    "those that the model was trained with"
)
