"""What a target would say and decide, for many continuations of few dialogues in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..dialogues.layout import COUNTS, HEAD, PAD, known, lengths
from ..dialogues.scenarios import decision_scores
from .agent import gru_weights
from .voice import Heard, Utterance, Voice


class Recalled(Protocol):
    """What a target computes once for dialogues so far: x are their rows (N, 12 + P)."""

    @property
    def x(self) -> Tensor:
        """Return the dialogues so far."""
        ...


class Shared(NamedTuple):
    """Hold what all continuations of the dialogues so far share, so that it is computed once.

    Attributes:
        x: rows (N, 12 + P).
        sizes: number of words so far, (N,).
        heard: state of the reader after them.
        onward: states of the deciding GRU from the front, (N, P, A).
        last: state of that GRU after the last word, (N, A).
        halves: contribution of these states to the attention's hidden layer, (N, P, A).
        gates: inputs of the deciding GRU from the back, (N, P, 3A).
    """

    x: Tensor
    sizes: Tensor
    heard: Heard
    onward: Tensor
    last: Tensor
    halves: Tensor
    gates: Tensor


class Glass(Protocol):
    """A target that exposes its scores of words and decisions, for white-box attacks."""

    def recall(self, x: Tensor) -> Recalled:
        """Return what all continuations of the dialogues so far share, for rows (N, 12 + P)."""
        ...

    def judge(self, memory: Any, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the scores (C, 126) of the decisions after continuations.

        Args:
            memory: the result of `recall` for N dialogues.
            owner: number of the dialogue of each continuation, int64 (C,).
            tail: words of each continuation, speakers' names included, padded: (C, L).
            sizes: number of these words, (C,).
        """
        ...

    def next_word(self, memory: Any, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the logits (C, V) of the word after continuations."""
        ...

    def reply(self, memory: Any, owner: Tensor, tail: Tensor, sizes: Tensor, most: int) -> Utterance:
        """Return the likeliest turn after continuations, of at most `most` words."""
        ...


class Mind:
    """Expose what an agent would say and decide.

    Args:
        voice: voice of the agent.
        walk_away: whether the agent may agree on nothing.
    """

    @torch.no_grad()
    def __init__(self, voice: Voice, walk_away: bool) -> None:
        self.voice, self.walk_away = voice, walk_away
        agent = self.agent = voice.agent
        size = agent.reader.hidden_size
        embedding = agent.embedding.weight
        self._onward = _Cell(agent.onward, size, embedding)
        self._returning = _Cell(agent.returning, size, embedding)
        layer: nn.Module = agent.attention[0]
        assert isinstance(layer, nn.Linear)
        half = agent.onward.hidden_size
        self._front, self._back, self._bias = layer.weight[:, :half].T, layer.weight[:, half:].T, layer.bias

    @torch.no_grad()
    def recall(self, x: Tensor) -> Shared:
        """Read the dialogues so far."""
        sizes = lengths(x)
        words = known(x[:, HEAD : HEAD + max(int(sizes.max()), 1)])
        if not words.shape[1]:
            words = x.new_full((len(x), 1), PAD)
        heard = self.voice.begin(x)
        hidden = self.voice.trace(heard, words)
        gates = [
            torch.stack([cell.gates(hidden[:, at], words[:, at]) for at in range(words.shape[1])], 1)
            for cell in (self._onward, self._returning)
        ]
        start = hidden.new_zeros(len(x), self.agent.onward.hidden_size)
        onward = self._onward.run(lambda place: gates[0][:, place], words.shape[1], start)
        rows = torch.arange(len(x), device=x.device)
        at = (sizes - 1).clamp_min(0)
        begun = (sizes > 0)[:, None]
        return Shared(
            x,
            sizes,
            heard._replace(hidden=hidden[rows, at] * begun),
            onward,
            onward[rows, at] * begun,
            onward @ self._front + self._bias,
            gates[1],
        )

    @torch.no_grad()
    def judge(self, memory: Shared, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the scores of the decisions after continuations."""
        tail = tail[:, : int(sizes.max())]
        before = memory.sizes[owner]
        length = int(before.max())
        # Continuations of one dialogue share its tensors without copies.
        alike = _alike(owner, tail)
        shared = owner[:1] if alike else owner
        hidden = self._trace(memory, owner, tail, alike)

        def returning(place: int) -> Tensor:
            return self._returning.gates(hidden[:, place], tail[:, place])

        def onward(rows: slice, places: slice, state: Tensor) -> Tensor:
            seen, words = hidden[rows, places], tail[rows, places]
            gates = self._onward.gates
            return self._onward.run(lambda at: gates(seen[:, at], words[:, at]), words.shape[1], state)

        front = _once(onward, memory.last[owner], alike, tail.shape[1])
        # From the back: first the continuation, then the dialogue before it.
        state = torch.zeros_like(front[:, 0])
        new, state = self._returning.run_back(returning, sizes, state, tail.shape[1])
        # The dialogue before is gathered word by word: a copy for each continuation would not fit the cache.
        old, _ = self._returning.run_back(lambda place: memory.gates[shared, place], before, state, length)
        layers = (
            (old @ self._back).add_(memory.halves[shared, :length]),
            (new @ self._back).add_(front @ self._front + self._bias),
        )
        scores = torch.cat([self.agent.attention[2](layer.tanh_())[..., 0] for layer in layers], 1)
        places = torch.arange(max(length, tail.shape[1]), device=tail.device)
        there = torch.cat([places[:length] < before[:, None], places[: tail.shape[1]] < sizes[:, None]], 1)
        weights = scores.masked_fill(~there, -torch.inf).softmax(1)
        said, more = weights[:, :length], weights[:, length:]
        parts = [
            _pooled(said, memory.onward[shared, :length]) + _pooled(more, front),
            _pooled(said, old) + _pooled(more, new),
            self.agent.goal(memory.x)[owner],
        ]
        choice = self.agent.outcomes(self.agent.decider[1](self.agent.decider[0](torch.cat(parts, 1))))
        return decision_scores(choice.view(len(owner), 6, -1), memory.x[owner, COUNTS], self.walk_away)

    def next_word(self, memory: Shared, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the logits of the word after continuations."""
        return self.voice.next_word(self._after(memory, owner, tail, sizes))

    def reply(self, memory: Shared, owner: Tensor, tail: Tensor, sizes: Tensor, most: int) -> Utterance:
        """Return the likeliest turn after continuations."""
        return self.voice.reply(self._after(memory, owner, tail, sizes), most)

    def _after(self, memory: Shared, owner: Tensor, tail: Tensor, sizes: Tensor) -> Heard:
        rows = torch.arange(len(owner), device=owner.device)
        states = self._trace(memory, owner, tail, _alike(owner, tail))
        return memory.heard.rows(owner)._replace(hidden=states[rows, sizes - 1])

    def _trace(self, memory: Shared, owner: Tensor, tail: Tensor, alike: int) -> Tensor:
        """Return the reader's states (C, L, H) after each word of continuations, the first `alike` equal."""
        heard = memory.heard.rows(owner)

        def read(rows: slice, places: slice, state: Tensor) -> Tensor:
            return self.voice.trace(Heard(state, heard.gates[rows]), tail[rows, places])

        return _once(read, heard.hidden, alike, tail.shape[1])


def _alike(owner: Tensor, tail: Tensor) -> int:
    """Return how many first words all continuations have in common; 0 if they are of several dialogues.

    Candidates for one place differ from there on only, so that the states before are computed once.
    """
    if len(owner) < 2 or not bool((owner == owner[0]).all()):
        return 0
    return int((tail == tail[:1]).all(0).long().cumprod(0).sum())


def _once(run: Callable[[slice, slice, Tensor], Tensor], state: Tensor, alike: int, length: int) -> Tensor:
    """Return the states (C, L, A) of a GRU, those that all rows have in common computed once.

    Args:
        run: function from rows, places and the state before them, (C, A), to the states there.
        state: initial state, (C, A); equal rows if `alike` is above 0.
        alike: number of first places whose inputs are equal in all rows.
        length: number of places, L.
    """
    if not alike:
        return run(slice(None), slice(None), state)
    first = run(slice(1), slice(alike), state[:1]).expand(len(state), -1, -1)
    if alike == length:
        return first
    return torch.cat([first, run(slice(None), slice(alike, None), first[:, -1])], 1)


def _pooled(weights: Tensor, states: Tensor) -> Tensor:
    """Return Σ_t weight_t · state_t for weights (C, L) and states (C, L, A), or (1, L, A)."""
    return weights @ states[0] if len(states) == 1 else (weights[:, None] @ states)[:, 0]


class _Cell:
    """A GRU whose inputs are reader states and words; the contribution of each word is in a table."""

    def __init__(self, gru: nn.GRU, size: int, embedding: Tensor) -> None:
        inputs, hidden, bias, self._bias = gru_weights(gru)
        self._state, self._table = inputs[:, :size].T, embedding @ inputs[:, size:].T + bias
        self._hidden = hidden.T

    def gates(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Return the inputs (N, 3A) of the gates for one word of each row."""
        return torch.addmm(self._table[words], hidden, self._state)

    def step(self, gates: Tensor, state: Tensor) -> Tensor:
        """Return the next state (N, A); gates are (N, 3A), or (1, 3A) if all rows share them."""
        size = state.shape[1]
        own = torch.addmm(self._bias, state, self._hidden)
        both = (gates[:, : 2 * size] + own[:, : 2 * size]).sigmoid_()
        new = torch.addcmul(gates[:, 2 * size :], both[:, :size], own[:, 2 * size :]).tanh_()
        return new.lerp_(state, both[:, size:])

    def run(self, gates: Callable[[int], Tensor], length: int, state: Tensor) -> Tensor:
        """Return the states (N, length, A) from the front.

        Args:
            gates: function from a place to the inputs (N, 3A) of the gates there.
            length: number of places.
            state: initial state.
        """
        states = []
        for place in range(length):
            state = self.step(gates(place), state)
            states.append(state)
        return torch.stack(states, 1)

    def run_back(
        self, gates: Callable[[int], Tensor], sizes: Tensor, state: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Return the states (N, length, A) from the back, each row from its own last word, and the final one.

        Args:
            gates: function from a place to the inputs (N, 3A) of the gates there, or (1, 3A).
            sizes: number of words of each row.
            state: initial state.
            length: number of places.
        """
        states, least = state.new_empty(len(state), length, state.shape[1]), int(sizes.min())
        for place in reversed(range(length)):
            new = self.step(gates(place), state)
            state = new if place < least else torch.where((place < sizes)[:, None], new, state)
            states[:, place] = state
        return states, state
