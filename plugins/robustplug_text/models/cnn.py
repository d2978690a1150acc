"""A small classifier of text: convolutions over words, and the largest value of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import TaskInfo

from ..data.passages import texts
from ..words import OTHER_WORDS, PAD, Numbers, Shifted, vocabulary_bytes

if TYPE_CHECKING:
    from ..options import WordCnnOptions


class WordCnn(nn.Module):
    """Embed words, convolve, take the maximum over the text, and classify (Kim 2014, arXiv:1408.5882, §2).

    The vocabulary is stored with the weights, as bytes, so that it can be checked on loading.

    Args:
        options: options of the component.
        info: info of the task `text`.

    Raises:
        ValueError: the task is another one.
    """

    vocabulary: Tensor

    def __init__(self, options: WordCnnOptions, *, info: TaskInfo) -> None:
        super().__init__()
        words = getattr(info, "vocabulary", None)
        if words is None or info.classes is None:
            raise ValueError('this model needs the task "text"')
        self.width = options.width
        self._numbers, self._sizes = Numbers(words), options.sizes
        self.register_buffer("vocabulary", vocabulary_bytes(words))
        self.embed = nn.Embedding(len(self._numbers), options.width, padding_idx=PAD)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(options.width, options.filters, size) for size in options.sizes
        )
        self.dropout = nn.Dropout(options.dropout)
        self.classify = nn.Linear(options.filters * len(options.sizes), info.classes)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}vocabulary")
        if stored is not None and not torch.equal(stored.cpu(), self.vocabulary.cpu()):
            rest[-1].append(OTHER_WORDS)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _read(self, x: Tensor) -> Tensor:
        return self._numbers.rows(texts(x)).to(self.embed.weight.device)

    def there(self, x: Tensor) -> Tensor:
        """Return which places hold a word, bool (N, S)."""
        return self._read(x) != PAD

    def forward(self, x: Tensor | Shifted) -> Tensor:
        """Return the logits (N, K) of rows of code points (N, C), or of a Shifted."""
        words = self._read(x.x if isinstance(x, Shifted) else x)
        vectors: Tensor = self.embed(words)
        there = (words != PAD)[..., None]
        if isinstance(x, Shifted):
            vectors = vectors + x.shift * there
        found = []
        for size, convolve in zip(self._sizes, self.convolutions, strict=True):
            # One window begins at each word; those that begin behind the text must not be the largest.
            windows = F.pad(vectors.transpose(1, 2), (0, size - 1))
            found.append((F.relu(convolve(windows)) * there.transpose(1, 2)).amax(2))
        logits: Tensor = self.classify(self.dropout(torch.cat(found, 1)))
        return logits
