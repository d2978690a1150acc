"""Constraints on attacked sentences: on their meaning, and on their fluency."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import word_embeddings

from ..models.folders import load_language_model
from ..text.scores import chrf

if TYPE_CHECKING:
    from ..options import ReplacementOptions


class Constraints:
    """Decide whether an attacked sentence still means the same, and is still fluent.

    Each sentence is judged alone, so that a batch cannot change the outcome.

    Args:
        options: options of `word-replacement`; without any constraint, every sentence is allowed.
    """

    def __init__(self, options: ReplacementOptions) -> None:
        self._options = options

    def allow(self, before: Sequence[str], after: Sequence[str]) -> Tensor:
        """Return which pairs of sentences satisfy all constraints, bool (N,); equal ones always do.

        Raises:
            ImportError: the word embeddings or transformers are not installed.
            ValueError: the folder holds no language model.
        """
        o = self._options
        found = torch.ones(len(before), dtype=torch.bool)
        if o.chrf:
            found &= torch.tensor([chrf(*pair) >= o.chrf for pair in zip(after, before, strict=True)]).bool()
        if o.similarity:
            found &= word_embeddings().similarity(after, before) >= o.similarity
        if o.language_model is not None:
            model = language_model(o.language_model)
            ratios = [
                model.perplexity(new) / model.perplexity(old) for new, old in zip(after, before, strict=True)
            ]
            found &= torch.tensor([ratio <= o.perplexity for ratio in ratios]).bool()
        equal = [one == other for one, other in zip(before, after, strict=True)]
        return found | torch.tensor(equal, dtype=torch.bool)


class LanguageModel:
    """The perplexity of sentences under a causal language model of transformers.

    Args:
        folder: local folder with config.json, safetensors weights and a tokenizer.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no such model.
    """

    def __init__(self, folder: str) -> None:
        self._model, self._tokenizer = load_language_model(folder)
        self.perplexity = functools.lru_cache(2**14)(self._perplexity)

    def _perplexity(self, text: str) -> float:
        """Return exp of the mean surprise per token, given those before it; inf for a text that is too long.

        The first token is predicted from the beginning of a text, if the tokenizer has a token for it.
        """
        numbers: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        first = self._tokenizer.bos_token_id
        numbers = numbers if first is None else [first, *numbers]
        room = getattr(self._model.config, "max_position_embeddings", None)
        if len(numbers) < 2:
            return 1.0
        if room is not None and len(numbers) > room:
            return math.inf
        ids = torch.tensor([numbers])
        with torch.no_grad():
            logits: Any = self._model(input_ids=ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:])
        return float(loss.exp())


@functools.cache
def language_model(folder: str) -> LanguageModel:
    """Return the language model of a folder, which is loaded once, on the CPU."""
    return LanguageModel(folder)
