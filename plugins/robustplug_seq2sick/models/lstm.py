"""A small model that translates: an LSTM encoder, and an LSTM decoder with attention and input feeding."""

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
    """Ask a model for the logits of given translations.

    Attributes:
        source: int64 (N, S).
        target: int64 (N, T).
    """

    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Embedded:
    """Ask a model to translate sentences given as vectors, and for a graph back to these.

    Attributes:
        vectors: (N, S, d), in the space of the model's `vectors()`.
        sizes: words of each sentence, int64 (N,); vectors behind them have no effect.
        limits: most words of each translation, int64 (N,).
        watched: words of the target whose logits are wanted, int64 (N, P, J); see `search.greedy`.
    """

    vectors: Tensor
    sizes: Tensor
    limits: Tensor
    watched: Tensor

    def __len__(self) -> int:
        return len(self.vectors)


class State(NamedTuple):
    """Hold the decoder's state: of its LSTM, and the attentional vector that is fed back."""

    hidden: Tensor
    cell: Tensor
    feed: Tensor


class Memory(NamedTuple):
    """Hold what the encoder made of sentences.

    Attributes:
        values: states (N, S, H).
        keys: what the decoder's states are multiplied with, (N, S, H).
        hidden: bool (N, S): padding, which gets no attention.
    """

    values: Tensor
    keys: Tensor
    hidden: Tensor


class LstmAttention(nn.Module):
    """A bidirectional LSTM encoder, and an LSTM decoder with global attention and input feeding.

    Luong et al. 2015 §3.1 (score "general") and §3.3. The last layer shares its weights with the embedding of
    the output. The vocabularies are part of the weights, as bytes, so that a model says what it was made for.

    Args:
        options: sizes.
        info: of a translation task: has `source` and `target`.
    """

    vocabulary: Tensor

    def __init__(self, options: Seq2SeqOptions, *, info: TaskInfo) -> None:
        super().__init__()
        source, target = getattr(info, "source", None), getattr(info, "target", None)
        if not isinstance(source, Words) or not isinstance(target, Words):
            raise ValueError('this model needs a task with words, such as "synthetic-translation"')
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
                "the weights belong to other vocabularies: the training text or the options of the task are "
                "not those that the model was trained with"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def vectors(self) -> Tensor:
        """Return the embedding of each word of the source, (V, d)."""
        return self.source.weight

    def limits(self, sizes: Tensor) -> Tensor:
        """Return how many words a translation may have at most, (N,); none if the sentence has none."""
        return torch.where(sizes > 0, 2 * sizes + self.options.longer, 0)

    def forward(self, x: Tensor | Forced | Embedded) -> Tensor | Translation:
        """Translate.

        Args:
            x: sentences int64 (N, S), which a beam is searched for, or, while training, the likeliest words;
                or what a Forced or an Embedded asks for. The first gives logits (N, T + 1, V) of each
                word of the target and of </s>, the second a Translation with scores.
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
        """Encode sentences (N, S, d) of some sizes (N,)."""
        steps = torch.arange(vectors.shape[1], device=sizes.device)
        # An empty sentence is read as one word of padding.
        sizes = sizes.clamp_min(1)
        there = steps < sizes[:, None]
        inputs = self.dropout(vectors)
        # Each row is turned round within its own length: padding stays at the end, and packing, whose
        # backward pass is slow on CPUs, is not needed.
        turned = torch.where(there, sizes[:, None] - 1 - steps, steps)
        # cuDNN goes back through an LSTM only while it is trained; attacks do so in eval mode.
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
    """Decode some sentences; see `search`."""

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
        """Return the logits of some words (N, J) as the next one, (N, J)."""
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
    """Return values (N, S, D) at other places of each row, (N, S)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))
