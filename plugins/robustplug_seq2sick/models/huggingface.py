"""Hugging Face encoder-decoders (Marian, T5, BART and others) from a local folder, as models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import Refused, TaskInfo, evaluating

from ..text.search import Scores, Translation, beam_search, greedy
from ..text.words import BEGIN, END, PAD, SPECIALS, UNKNOWN, Words, lengths, trimmed
from .folders import has_tokenizer, load_model, load_tokenizer, new_model, prefix_of
from .lstm import Embedded, Forced

if TYPE_CHECKING:
    from ..options import HuggingFaceOptions


class HuggingFace(nn.Module):
    """Translate with an encoder-decoder, using the word numbers of the task.

    Tables map the task's word numbers to those of the model. With a tokenizer, the task must use the same
    tokenizer (`task.vocabulary = "tokenizer"`). Without a tokenizer the numbers are identical, and the pad,
    start and end of the model's config must be those of the task: 0, 2 and 3.

    Args:
        options: options of the component.
        info: info of a translation task.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no such model, or the model does not fit the task.
    """

    known: Tensor
    said: Tensor
    before: Tensor
    behind: Tensor
    opening: Tensor

    def __init__(self, options: HuggingFaceOptions, *, info: TaskInfo) -> None:
        super().__init__()
        source, target = getattr(info, "source", None), getattr(info, "target", None)
        if not isinstance(source, Words) or not isinstance(target, Words):
            raise ValueError('this model needs a translation task, such as "translation"')
        self.options = options
        folder, most = options.folder, max(len(source), len(target))
        self.inner: Any = (
            new_model(most, options.layers, options.width) if folder is None else load_model(folder)
        )
        config = self.inner.config
        read = folder is not None and has_tokenizer(folder)
        wanted = options.prefix if read else options.prefix or ""
        self.prefix, self._notes = prefix_of(config, wanted, getattr(info, "work", ""))
        start = config.decoder_start_token_id
        self._specials = {PAD: config.pad_token_id, BEGIN: start, END: config.eos_token_id}
        if folder is not None and read:
            known, said, before, behind = self._by_tokenizer(folder, source, target)
        else:
            known, said, before, behind = self._as_they_are(source, target)
        tables = {"known": known, "said": said, "before": before, "behind": behind}
        for name, values in tables.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64))
        # Multilingual models select the target language by a forced first word.
        forced = self.inner.generation_config.forced_bos_token_id
        opening = torch.tensor([start] if forced is None else [start, forced])
        self.register_buffer("opening", opening)
        self._room = getattr(config, "max_position_embeddings", None)
        self.scale = self._find_scale()

    def _by_tokenizer(self, folder: str, source: Words, target: Words) -> tuple[list[int], ...]:
        tokenizer = load_tokenizer(folder)
        if not set(source.all[len(SPECIALS) :]) <= tokenizer.get_vocab().keys():
            raise ValueError(
                f'{folder} has a tokenizer: set task.vocabulary = "tokenizer" and task.tokenizer = "{folder}"'
            )
        specials = {**self._specials, UNKNOWN: tokenizer.unk_token_id}
        if specials[UNKNOWN] is None:
            specials[UNKNOWN] = specials[PAD]

        def table(words: Words) -> list[int]:
            found = tokenizer.convert_tokens_to_ids(list(words.all[len(SPECIALS) :]))
            return [*(specials[number] for number in range(len(SPECIALS))), *found]

        plain = tokenizer("a", add_special_tokens=False).input_ids
        framed = tokenizer("a").input_ids
        at = next(place for place in range(len(framed)) if framed[place : place + len(plain)] == plain)
        asked = tokenizer(self.prefix, add_special_tokens=False).input_ids
        return table(source), table(target), framed[:at] + asked, framed[at + len(plain) :]

    def _as_they_are(self, source: Words, target: Words) -> tuple[list[int], ...]:
        folder, size = self.options.folder, self.inner.config.vocab_size
        most = max(len(source), len(target))
        if self.prefix:
            raise ValueError(f"model.prefix needs a tokenizer, but {folder} has none: leave prefix out")
        if self._specials != {PAD: PAD, BEGIN: BEGIN, END: END} or size < most:
            raise ValueError(
                f"{folder} has no tokenizer, so its words must be the task's: at least {most} words (it has "
                f"{size}), pad_token_id 0, decoder_start_token_id 2, eos_token_id 3"
            )
        return list(range(len(source))), list(range(len(target))), [], [END]

    def facts(self) -> Mapping[str, Any]:
        """Return the text before each sentence, and notes on where it comes from."""
        return {"prefix": self.prefix, "notes": list(self._notes)}

    @torch.no_grad()
    def _find_scale(self) -> float:
        """Return the factor between the encoder's embedding table and its `inputs_embeds`."""
        encoder = self.inner.get_encoder()
        words = torch.cat([self.before, self.known[-3:], self.behind])[None]
        table = encoder.get_input_embeddings()
        with evaluating(encoder):
            expected = encoder(input_ids=words)[0]
            for scale in (1.0, float(getattr(encoder, "embed_scale", 1.0) or 1.0)):
                found = encoder(inputs_embeds=table(words) * scale)[0]
                if torch.allclose(found, expected, atol=1e-4):
                    return scale
        raise ValueError(f"{self.options.folder}: the encoder treats words and their embeddings differently")

    def _embed(self, words: Tensor) -> Tensor:
        """Return the encoder's input embeddings of its own word numbers, (…, d)."""
        embedded: Tensor = self.inner.get_encoder().get_input_embeddings()(words)
        return embedded * self.scale

    def vectors(self) -> Tensor:
        """Return the embedding of each source word of the task, (V, d)."""
        return self._embed(self.known)

    def limits(self, sizes: Tensor) -> Tensor:
        """Return the largest number of words of each translation, (N,); 0 for an empty sentence."""
        limits = 2 * sizes + self.options.longer
        if self._room is not None:
            limits = limits.clamp_max(self._room - len(self.opening))
        return torch.where(sizes > 0, limits, 0)

    def forward(self, x: Tensor | Forced | Embedded) -> Tensor | Translation:
        """Translate; see `LstmAttention.forward`."""
        if isinstance(x, Forced):
            source, target = trimmed(x.source), trimmed(x.target)
            return self._read(self._embed(self.known[source]), lengths(source)).forced(target)
        if isinstance(x, Embedded):
            return self._differentiable(self._read(x.vectors, x.sizes), x.limits, x.watched)
        x = trimmed(x)
        sizes = lengths(x)
        reader = self._read(self._embed(self.known[x]), sizes)
        if self.training:
            return self._differentiable(reader, self.limits(sizes), x.new_zeros(len(x), 1, 0))
        with torch.no_grad():
            return beam_search(reader, self.limits(sizes), self.options.beam)

    def _differentiable(self, reader: Reader, limits: Tensor, watched: Tensor) -> Translation:
        """Decode greedily without a graph, then run the decoder once over all words to build the graph."""
        with torch.no_grad():
            words = trimmed(greedy(reader, limits, watched).words)
        return Translation(words, Scores.of(reader.forced(words), watched))

    def check_room(self, length: int) -> None:
        """Refuse sentences with too many words.

        Raises:
            Refused: the model has fewer positions than the sentence has words.
        """
        if self._room is not None and length > self._room:
            raise Refused(
                f"a sentence has {length} words, special ones included, and the model takes {self._room} at "
                "most: lower task.longest"
            )

    def _read(self, vectors: Tensor, sizes: Tensor) -> Reader:
        """Encode sentences, with the tokens that the tokenizer adds before and after them."""
        count, first = len(vectors), len(self.before)
        before = self._embed(self.before)[None].expand(count, -1, -1)
        room = vectors.new_zeros(count, len(self.behind), vectors.shape[2])
        whole = torch.cat([before, vectors, room], 1)
        rows = torch.arange(count, device=vectors.device)
        for number, vector in enumerate(self._embed(self.behind)):
            whole = whole.index_put((rows, first + sizes + number), vector.expand(count, -1))
        self.check_room(whole.shape[1])
        places = torch.arange(whole.shape[1], device=vectors.device)
        mask = (places < (first + sizes + len(self.behind))[:, None]).long()
        # Masked vectors must be finite; zeros are the safest choice.
        encoded = self.inner.get_encoder()(inputs_embeds=whole * mask[..., None], attention_mask=mask)[0]
        return Reader(self, encoded, mask)


class Reader:
    """Decode the encoded sentences; the state consists of the words so far. See `search`."""

    def __init__(self, model: HuggingFace, encoded: Tensor, mask: Tensor) -> None:
        self.model, self.encoded, self.mask = model, encoded, mask

    def begin(self) -> Tensor:
        """Return the state before the first word: no words."""
        return torch.zeros(len(self.encoded), 0, dtype=torch.int64, device=self.encoded.device)

    def step(self, rows: Tensor, state: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the next word after one more word, and the words so far."""
        state = torch.cat([state, words[:, None]], 1)
        return self._logits(self.encoded[rows], self.mask[rows], state)[:, -1], state

    def logits(self, vectors: Tensor) -> Tensor:
        """Return the vectors, which are logits: output heads differ too much between models to split them."""
        return vectors

    def some(self, vectors: Tensor, words: Tensor) -> Tensor:
        """Return the logits of some words."""
        return vectors.gather(1, words)

    def forced(self, target: Tensor) -> Tensor:
        """Return the logits (N, T + 1, V) of each word of translations (N, T), and of </s>."""
        before = torch.nn.functional.pad(target, (1, 0), value=BEGIN)
        return self._logits(self.encoded, self.mask, before)

    def _logits(self, encoded: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Return the logits of the next word after each word of (N, T), whose first word is <s>."""
        model = self.model
        opening = model.opening.expand(len(words), -1)
        asked = torch.cat([opening, model.said[words[:, 1:]]], 1)
        model.check_room(asked.shape[1])
        found: Tensor = model.inner(
            encoder_outputs=(encoded,), attention_mask=mask, decoder_input_ids=asked, use_cache=False
        ).logits
        return found[:, opening.shape[1] - 1 :, model.said]
