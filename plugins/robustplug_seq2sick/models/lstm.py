"""A small translation model: an LSTM encoder, and an LSTM decoder with attention and input feeding."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import TaskInfo

from ..text.search import Translation, beam_search, greedy
from ..text.words import BEGIN, PAD, Words, lengths, trimmed

if TYPE_CHECKING:
    from ..options import Seq2SeqOptions


@dataclass(frozen=True)
class Forced:
    """Request the logits of given translations from a model.

    Attributes:
        source: sentences, int64 (N, S).
        target: their translations, int64 (N, T).
    """

    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Embedded:
    """Request translations of sentences given as vectors, with a graph back to the vectors.

    Attributes:
        vectors: (N, S, d), in the space of the model's `vectors()`.
        sizes: number of words of each sentence, int64 (N,); vectors beyond it have no effect.
        limits: largest number of words of each translation, int64 (N,).
        watched: target words whose logits are needed, int64 (N, P, J); see `search.greedy`.
    """

    vectors: Tensor
    sizes: Tensor
    limits: Tensor
    watched: Tensor

    def __len__(self) -> int:
        return len(self.vectors)


class State(NamedTuple):
    """Hold the decoder's state: that of its LSTM, and the attentional vector that is fed back."""

    hidden: Tensor
    cell: Tensor
    feed: Tensor


class Memory(NamedTuple):
    """Hold the encoded sentences.

    Attributes:
        values: states of the encoder, (N, S, H).
        keys: vectors that the decoder's states are multiplied with, (N, S, H).
        hidden: mask of the padding, which receives no attention, bool (N, S).
    """

    values: Tensor
    keys: Tensor
    hidden: Tensor


class LstmAttention(nn.Module):
    """A bidirectional LSTM encoder, and an LSTM decoder with global attention and input feeding.

    Luong et al. 2015 §3.1 (score "general") and §3.3. The last layer shares its weights with the output
    embedding. The vocabularies are stored with the weights, as bytes, so that they can be checked on loading.

    Args:
        options: options of the component.
        info: info of a translation task, with `source` and `target`.
    """

    vocabulary: Tensor

    def __init__(self, options: Seq2SeqOptions, *, info: TaskInfo) -> None:
        super().__init__()
        source, target = getattr(info, "source", None), getattr(info, "target", None)
        if not isinstance(source, Words) or not isinstance(target, Words):
            raise ValueError('this model needs a translation task, such as "synthetic-translation"')
        o = self.options = options
        text = "\n".join([*source.all, "", *target.all]).encode()
        self.register_buffer("vocabulary", torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.source = nn.Embedding(len(source), o.word, padding_idx=PAD)
        self.target = nn.Embedding(len(target), o.word, padding_idx=PAD)
        self.onward = nn.LSTM(o.word, o.hidden // 2, batch_first=True)
        self.returning = nn.LSTM(o.word, o.hidden // 2, batch_first=True)
        self.first_hidden = nn.Linear(o.hidden, o.hidden)
        self.first_cell = nn.Linear(o.hidden, o.hidden)
        self.decoder = nn.LSTMCell(o.word + o.hidden, o.hidden)
        self.score = nn.Linear(o.hidden, o.hidden, bias=False)
        self.combine = nn.Linear(2 * o.hidden, o.hidden, bias=False)
        self.narrow = nn.Linear(o.hidden, o.word, bias=False)
        self.bias = nn.Parameter(torch.zeros(len(target)))
        self.dropout = nn.Dropout(o.dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -o.init, o.init)
        with torch.no_grad():
            self.source.weight[PAD] = self.target.weight[PAD] = 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}vocabulary")
        if stored is not None and not torch.equal(stored.cpu(), self.vocabulary.cpu()):
            rest[-1].append(
                "the weights belong to other vocabularies: the training text or the options of the task "
                "differ from those that the model was trained with"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def vectors(self) -> Tensor:
        """Return the embedding of each source word, (V, d)."""
        return self.source.weight

    def limits(self, sizes: Tensor) -> Tensor:
        """Return the largest number of words of each translation, (N,); 0 for an empty sentence."""
        return torch.where(sizes > 0, 2 * sizes + self.options.longer, 0)

    def forward(self, x: Tensor | Forced | Embedded) -> Tensor | Translation:
        """Translate.

        Args:
            x: sentences int64 (N, S), a Forced or an Embedded. Sentences are translated by beam search or,
                in train mode, greedily. A Forced returns logits (N, T + 1, V) of each word of the target
                and of </s>; an Embedded returns a Translation with scores.
        """
        if isinstance(x, Forced):
            return self.forced(x)
        if isinstance(x, Embedded):
            return greedy(self.reader(x.vectors, x.sizes), x.limits, x.watched)
        x = trimmed(x)
        sizes = lengths(x)
        limits = self.limits(sizes)
        if not self.training:
            with torch.no_grad():
                return beam_search(self.reader(self.source(x), sizes), limits, self.options.beam)
        return greedy(self.reader(self.source(x), sizes), limits, x.new_zeros(len(x), 1, 0))

    def forced(self, pairs: Forced) -> Tensor:
        """Return the logits (N, T + 1, V) of each word of given translations, and of </s>."""
        source, target = trimmed(pairs.source), trimmed(pairs.target)
        reader = self.reader(self.source(source), lengths(source))
        before = F.pad(target, (1, 0), value=BEGIN)
        embedded = self.dropout(self.target(before))
        state, found = reader.begin(), []
        for place in range(embedded.shape[1]):
            state = reader.after(reader.memory, state, embedded[:, place])
            found.append(state.feed)
        return reader.logits(self.dropout(torch.stack(found, 1)))

    def reader(self, vectors: Tensor, sizes: Tensor) -> Reader:
        """Encode sentences (N, S, d) with the given numbers of words, (N,)."""
        steps = torch.arange(vectors.shape[1], device=sizes.device)
        # An empty sentence is read as one word of padding.
        sizes = sizes.clamp_min(1)
        there = steps < sizes[:, None]
        inputs = self.dropout(vectors)
        # Each row is reversed within its own length, so that padding stays at the end. This avoids packing,
        # whose backward pass is slow on CPUs.
        turned = torch.where(there, sizes[:, None] - 1 - steps, steps)
        # cuDNN has a backward pass through an LSTM in train mode only; attacks need one in eval mode.
        attacked = torch.is_grad_enabled() and not self.training
        with torch.backends.cudnn.flags(enabled=False) if attacked else nullcontext():
            onward, back = self.onward(inputs)[0], self.returning(_places(inputs, turned))[0]
        ends = torch.arange(len(sizes), device=sizes.device), sizes - 1
        read = torch.cat([onward[ends], back[ends]], 1)
        values = torch.cat([onward, _places(back, turned)], 2)
        hidden = self.first_hidden(read).tanh()
        start = State(hidden, self.first_cell(read), torch.zeros_like(hidden))
        return Reader(self, Memory(values, self.score(values), ~there), start)


class Reader:
    """Decode the encoded sentences; see `search`."""

    def __init__(self, model: LstmAttention, memory: Memory, start: State) -> None:
        self.model, self.memory, self._start = model, memory, start
        self._rows = torch.arange(len(memory.values), device=memory.values.device)
        self._selected = memory

    def begin(self) -> State:
        """Return the state before the first word."""
        return self._start

    def step(self, rows: Tensor, state: State, words: Tensor) -> tuple[Tensor, State]:
        """Return the attentional vectors, and the state, after one more word."""
        model = self.model
        if not torch.equal(rows, self._rows):
            self._rows, self._selected = rows, Memory(*(part[rows] for part in self.memory))
        state = self.after(self._selected, state, model.dropout(model.target(words)))
        return model.dropout(state.feed), state

    def logits(self, vectors: Tensor) -> Tensor:
        """Return the logits (…, V) of the next word after attentional vectors (…, H)."""
        return F.linear(self.model.narrow(vectors), self.model.target.weight, self.model.bias)

    def some(self, vectors: Tensor, words: Tensor) -> Tensor:
        """Return the logits of some words (N, J) as the next word, (N, J)."""
        model = self.model
        products = torch.bmm(model.target.weight[words], model.narrow(vectors)[..., None])[..., 0]
        return products + model.bias[words]

    def after(self, memory: Memory, state: State, embedded: Tensor) -> State:
        """Return the state after one more word (N, d). Luong et al. 2015, Eq. 5 to 8."""
        model = self.model
        hidden, cell = model.decoder(torch.cat([embedded, state.feed], 1), (state.hidden, state.cell))
        scores = torch.bmm(memory.keys, hidden[..., None])[..., 0]
        weights = scores.masked_fill(memory.hidden, -torch.inf).softmax(1)
        context = torch.bmm(weights[:, None], memory.values)[:, 0]
        return State(hidden, cell, model.combine(torch.cat([context, hidden], 1)).tanh())


def _places(values: Tensor, places: Tensor) -> Tensor:
    """Return values (N, S, D) at the given positions of each row, (N, S)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))
