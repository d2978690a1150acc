"""Let an agent speak in many dialogues at once, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from robustplug.api import evaluating

from ..dialogues.layout import EOS, PAD, SELECTION, SPECIALS, THEM, YOU, known
from .agent import Agent, gru_weights

TEMPERATURE = 0.5
"""Words are drawn from softmax(z / 0.5), as in Lewis et al. 2017."""


class Utterance(NamedTuple):
    """Hold one turn of each of some dialogues.

    Attributes:
        words: words after the speaker's name, up to <eos> or <selection>, then padding: int64 (N, L).
        sizes: number of words of each turn, <eos> or <selection> included, int64 (N,).
    """

    words: Tensor
    sizes: Tensor

    def rows(self, keep: Tensor | slice) -> Utterance:
        """Return some rows."""
        return Utterance(self.words[keep], self.sizes[keep])

    @property
    def ends(self) -> Tensor:
        """Return which turns end the dialogue, bool (N,)."""
        return self.words[:, 0] == SELECTION


class Heard(NamedTuple):
    """Hold a voice's state in dialogues.

    Attributes:
        hidden: state of the reader, (N, H).
        gates: contribution of the goal to the reader's gates, (N, 3H).
    """

    hidden: Tensor
    gates: Tensor

    def rows(self, keep: Tensor) -> Heard:
        """Return some rows."""
        return Heard(self.hidden[keep], self.gates[keep])

    def put(self, rows: Tensor, new: Heard) -> Heard:
        """Return a copy with other rows in some places."""
        return Heard(*(old.index_copy(0, rows, value) for old, value in zip(self, new, strict=True)))


class Memory(Protocol):
    """The state of a side in some dialogues; opaque to others except for its rows."""

    def rows(self, keep: Tensor) -> Any:
        """Return the state of some dialogues, int64 or bool."""
        ...

    def put(self, rows: Tensor, new: Any) -> Any:
        """Return a copy with the state of other dialogues in some places, int64."""
        ...


class Speaker(Protocol):
    """One side of many negotiations at once."""

    def begin(self, x: Tensor) -> Memory:
        """Return the state before the first turn; x are rows (N, 12) as this side sees them."""
        ...

    def hear(self, heard: Any, said: Utterance, who: int) -> Memory:
        """Return the state after another turn, of YOU or of THEM."""
        ...

    def speak(self, heard: Any, noise: Tensor, may_end: bool = True) -> Utterance:
        """Return a turn for each dialogue; only `hear` adds it to the state.

        Args:
            heard: the state in N dialogues.
            noise: random numbers in [0, 1), (N, L): one for each possible word, and one for <eos>.
            may_end: whether the turn may be <selection>.
        """
        ...

    def choice(self, x: Tensor) -> Tensor:
        """Return the logits of outcomes (N, 6, 8) after whole dialogues (N, 12 + T)."""
        ...


def ending(count: int, device: torch.device) -> Utterance:
    """Return turns that end their dialogues."""
    words = torch.full((count, 1), SELECTION, device=device)
    return Utterance(words, torch.ones(count, dtype=torch.int64, device=device))


def utterance(rows: Sequence[Sequence[int]], device: Any) -> Utterance:
    """Pad turns, and return them with their sizes."""
    width = max(map(len, rows), default=1)
    words = [[*row, *[PAD] * (width - len(row))] for row in rows]
    return Utterance(
        torch.tensor(words, device=device).view(-1, width),
        torch.tensor([len(row) for row in rows], device=device),
    )


def forbidden(logits: Tensor, first: bool | Tensor) -> Tensor:
    """Set the logits (…, V) of forbidden words to -inf.

    The first word of a turn is a word or <selection>, every other one a word or <eos>.

    Args:
        logits: logits of the next word.
        first: whether the next word is the first of its turn; bool (…), or one value for all.
    """
    never = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    never[[PAD, YOU, THEM, len(SPECIALS) - 1]] = True
    at_start, later = never.clone(), never.clone()
    at_start[EOS] = later[SELECTION] = True
    if isinstance(first, bool):
        return logits.masked_fill(at_start if first else later, -torch.inf)
    return logits.masked_fill(torch.where(first[..., None], at_start, later), -torch.inf)


def draw(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Draw a word from softmax(z / temperature) of each row by inverting its distribution, int64 (N,).

    Args:
        logits: logits z, (N, V).
        noise: one random number in [0, 1) per row, (N,); the only randomness of a row's word.
        temperature: softmax temperature, above 0.
    """
    shares = (logits.double() / temperature).softmax(1).cumsum(1)
    # Rounding must not select a word of probability 0 at the end.
    target = noise.double()[:, None] * shares[:, -1:]
    return torch.searchsorted(shares, target, right=True)[:, 0]


class Voice:
    """Speak and listen for an agent.

    The reader's input products and the output products of all words are computed once, so that a word costs
    one small product. Dropout is off.

    Args:
        agent: the agent; its weights are read once, so create a new voice when they change.
        temperature: softmax temperature at which words are drawn.
    """

    @torch.no_grad()
    def __init__(self, agent: Agent, temperature: float = TEMPERATURE) -> None:
        self.agent, self.temperature = agent, temperature
        inputs, hidden, self._bias, self._hidden_bias = gru_weights(agent.reader)
        size = agent.embedding.embedding_dim
        self._table = agent.embedding.weight @ inputs[:, :size].T
        self._goal, self._hidden = inputs[:, size:].T, hidden.T
        self._out = (agent.embedding.weight @ agent.decoder.weight).T
        self._out_bias = agent.embedding.weight @ agent.decoder.bias
        # With these biases, forbidden words need no masks: of a word in a turn, and of its first.
        self._allowed = torch.stack([forbidden(self._out_bias, first) for first in (False, True)])

    @torch.no_grad()
    def begin(self, x: Tensor) -> Heard:
        """Return the state before the first turn."""
        hidden = x.new_zeros(len(x), self.agent.reader.hidden_size, dtype=self._table.dtype)
        return Heard(hidden, self.agent.goal(x) @ self._goal + self._bias)

    @torch.no_grad()
    def after(self, heard: Heard, words: Tensor) -> Heard:
        """Return the state after one more word (N,)."""
        size = heard.hidden.shape[1]
        new = self._table[words] + heard.gates
        own = torch.addmm(self._hidden_bias, heard.hidden, self._hidden)
        both = (new[:, : 2 * size] + own[:, : 2 * size]).sigmoid_()
        hidden = torch.addcmul(new[:, 2 * size :], both[:, :size], own[:, 2 * size :]).tanh_()
        return heard._replace(hidden=hidden.lerp_(heard.hidden, both[:, size:]))

    def trace(self, heard: Heard, words: Tensor) -> Tensor:
        """Return the reader's states (N, L, H) after each of the next words (N, L)."""
        states = []
        for place in range(words.shape[1]):
            heard = self.after(heard, words[:, place])
            states.append(heard.hidden)
        return torch.stack(states, 1)

    def hear(self, heard: Heard, said: Utterance, who: int) -> Heard:
        """Return the state after another turn."""
        heard = self.after(heard, torch.full_like(said.sizes, who))
        # Longest turns first: those that are over are the last rows, and take no further work.
        order = said.sizes.argsort(descending=True)
        words, sizes, left = known(said.words)[order], said.sizes[order], heard.rows(order)
        more = (sizes[:, None] > torch.arange(words.shape[1], device=sizes.device)).sum(0)
        for place, count in enumerate(more.tolist()):
            first = Heard(left.hidden[:count], left.gates[:count])
            left.hidden[:count] = self.after(first, words[:count, place]).hidden
        return heard._replace(hidden=torch.empty_like(left.hidden).index_copy_(0, order, left.hidden))

    @torch.no_grad()
    def next_word(self, heard: Heard) -> Tensor:
        """Return the logits (N, V) of the next word, forbidden words included."""
        return torch.addmm(self._out_bias, heard.hidden, self._out)

    @torch.no_grad()
    def word(self, heard: Heard, noise: Tensor, first: Tensor) -> Tensor:
        """Draw one word for each dialogue, int64 (N,).

        Args:
            heard: the state in N dialogues.
            noise: random numbers in [0, 1), (N,).
            first: whether the word is the first of its turn, bool (N,).
        """
        logits = torch.addmm(self._allowed[first.long()], heard.hidden, self._out)
        return draw(logits, noise, self.temperature)

    def speak(self, heard: Heard, noise: Tensor, may_end: bool = True) -> Utterance:
        """Draw a turn for each dialogue; each word has its own noise, so dialogues are independent."""
        return self._speak(heard, noise.shape[1], noise, may_end)

    def reply(self, heard: Heard, most: int) -> Utterance:
        """Return the turn of the likeliest next words, at most `most`, <eos> included."""
        return self._speak(heard, most, None, True)

    def _speak(self, heard: Heard, most: int, noise: Tensor | None, may_end: bool) -> Utterance:
        count, device = len(heard.hidden), heard.hidden.device
        words = torch.full((count, most), PAD, device=device)
        sizes = torch.zeros(count, dtype=torch.int64, device=device)
        rows = torch.arange(count, device=device)
        heard = self.after(heard, torch.full_like(sizes, YOU))
        for place in range(most):
            logits = torch.addmm(self._allowed[int(place == 0)], heard.hidden, self._out)
            if place == 0 and not may_end:
                logits[:, SELECTION] = -torch.inf
            word = logits.argmax(1) if noise is None else draw(logits, noise[rows, place], self.temperature)
            if place == most - 1:
                word = torch.full_like(word, EOS)
            words[rows, place] = word
            sizes[rows] = place + 1
            going = (word != EOS) & (word != SELECTION)
            if not going.any():
                break
            rows, heard = rows[going], self.after(heard.rows(going), word[going])
        return Utterance(words[:, : int(sizes.max()) if count else 1], sizes)

    @torch.no_grad()
    def choice(self, x: Tensor) -> Tensor:
        """Return the logits of outcomes after whole dialogues."""
        with evaluating(self.agent):
            return self.agent.decision(x)
