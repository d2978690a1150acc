"""The negotiating agent of Lewis et al. 2017: reads, speaks and decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from robustplug.api import Refused, TaskInfo, open_model

from ..dialogues.layout import COUNTS, HEAD, OUTCOMES, OWN, PAD, Words, known, lengths
from ..dialogues.scenarios import TOTAL

if TYPE_CHECKING:
    from ..options import AgentOptions


# Rows of one pass without dropout: dialogues of similar lengths share a pass, which saves padding.
GROUP = 32


class Reading(NamedTuple):
    """Hold an agent's output for dialogues.

    Attributes:
        words: logits (N, T, V) of the word after each word.
        choice: logits (N, 6, 8) of the outcome of each item for the own side, then for the other.
    """

    words: Tensor
    choice: Tensor


class Agent(nn.Module):
    """A negotiating agent: word embedding, goal encoder, reader and a head that decides.

    The reader is also the writer: the same GRU and the same embedding, which is tied to the output. The
    head runs a GRU over the dialogue in both directions, pools it by attention, and returns logits of the
    outcome of each item. The agent does not see what the items are worth to the other side.

    The state dict contains the vocabulary as bytes, so a checkpoint identifies its vocabulary.

    Args:
        options: sizes.
        info: info of a negotiation task; it has `words`.
    """

    vocabulary: Tensor

    def __init__(self, options: AgentOptions, *, info: TaskInfo) -> None:
        super().__init__()
        words = getattr(info, "words", None)
        if not isinstance(words, Words):
            raise ValueError('an agent needs a task with words, such as "scripted-negotiation"')
        o = options
        text = "\n".join(words.all).encode()
        self.register_buffer("vocabulary", torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.embedding = nn.Embedding(len(words), o.word, padding_idx=PAD)
        self.count = nn.Embedding(TOTAL + 1, o.goal)
        self.value = nn.Embedding(TOTAL + 1, o.goal)
        self.encoder = nn.Linear(3 * o.goal, o.goal)
        self.reader = nn.GRU(o.word + o.goal, o.reader, batch_first=True)
        self.decoder = nn.Linear(o.reader, o.word)
        self.onward = nn.GRU(o.reader + o.word, o.attention, batch_first=True)
        self.returning = nn.GRU(o.reader + o.word, o.attention, batch_first=True)
        self.attention = nn.Sequential(
            nn.Linear(2 * o.attention, o.attention), nn.Tanh(), nn.Linear(o.attention, 1)
        )
        self.decider = nn.Sequential(nn.Linear(2 * o.attention + o.goal, o.choice), nn.Tanh())
        self.outcomes = nn.Linear(o.choice, 6 * OUTCOMES)
        self.dropout = nn.Dropout(o.dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -o.init, o.init)
        with torch.no_grad():
            self.embedding.weight[PAD] = 0

    def words(self) -> Words:
        """Return the agent's vocabulary."""
        return Words(tuple(bytes(self.vocabulary.tolist()).decode().split("\n")))

    def forward(self, x: Tensor) -> Reading:
        """Read whole dialogues (N, 12 + T) and decide; see `layout`. Padding at the end has no effect."""
        sizes = lengths(x)
        if not self.dropout.training and len(x) > GROUP:
            order = sizes.argsort()
            parts = [self._read_all(x[rows], sizes[rows]) for rows in torch.split(order, GROUP)]
            longest = parts[-1].words.shape[1]
            words = [F.pad(part.words, (0, 0, 0, longest - part.words.shape[1])) for part in parts]
            back = order.argsort()
            return Reading(torch.cat(words)[back], torch.cat([part.choice for part in parts])[back])
        return self._read_all(x, sizes)

    def decision(self, x: Tensor) -> Tensor:
        """Return the logits (N, 6, 8) of the outcomes after whole dialogues, without those of the words.

        Dropout is not applied. Padding takes no work; the backward pass of packed dialogues is slow on CPUs.
        """
        sizes = lengths(x).clamp_min(1)
        order = sizes.argsort(descending=True)
        sizes, goal = sizes[order], self.goal(x[order])
        words = known(x[order, HEAD : HEAD + int(sizes[0])])
        if not words.shape[1]:
            words = x.new_full((len(x), 1), PAD)
        steps = torch.arange(words.shape[1], device=x.device)
        there = steps[:, None] < sizes
        # The words of all dialogues as a PackedSequence has them: first words, then second words, and so on.
        place, row = there.nonzero().unbind(1)
        counts = there.sum(1)
        before = counts.cumsum(0) - counts
        turned = before[sizes[row] - 1 - place] + row
        packs = counts.cpu()
        embedded = self.embedding(words[row, place])
        hidden = _packed(self.reader, torch.cat([embedded, goal[row]], 1), packs)
        seen = torch.cat([hidden, embedded], 1)
        back = _packed(self.returning, seen[turned], packs)[turned]
        attended = torch.cat([_packed(self.onward, seen, packs), back], 1)
        scores = seen.new_full(words.shape, -torch.inf)
        scores[row, place] = self.attention(attended)[:, 0]
        shares = scores.softmax(1)[row, place]
        pooled = attended.new_zeros(len(x), attended.shape[1]).index_add_(0, row, shares[:, None] * attended)
        outcomes: Tensor = self.outcomes(self.decider[1](self.decider[0](torch.cat([pooled, goal], 1))))
        return outcomes.view(-1, 6, OUTCOMES)[order.argsort()]

    def next_words(self, x: Tensor) -> Tensor:
        """Return the logits (N, T, V) of the word after each word of (N, 12 + T), without a decision."""
        words = known(x[:, HEAD : HEAD + int(lengths(x).max())])
        hidden, _ = self.reader(self._inputs(self.embedding(words), self.goal(x)))
        return self.speech(hidden)

    def _read_all(self, x: Tensor, sizes: Tensor) -> Reading:
        hidden, embedded, goal = self._read(x, sizes)
        return Reading(self.speech(hidden), self._choice(hidden, embedded, goal, sizes.clamp_min(1)))

    def _read(self, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reader's states (N, T, H), the embedded words (N, T, D) and the goals (N, G)."""
        longest = max(int(sizes.max()), 1)
        words = known(x[:, HEAD : HEAD + longest])
        if not words.shape[1]:
            words = x.new_full((len(x), 1), PAD)
        embedded = self.embedding(words)
        goal = self.goal(x)
        hidden, _ = self.reader(self._inputs(embedded, goal))
        return hidden, embedded, goal

    def goal(self, x: Tensor) -> Tensor:
        """Encode counts and own values of rows x as (N, G)."""
        parts = self.count(x[:, COUNTS]) * self.value(x[:, OWN])
        encoded: Tensor = self.encoder(torch.tanh(parts).flatten(1)).tanh()
        return encoded

    def speech(self, hidden: Tensor) -> Tensor:
        """Return the logits (…, V) of the next word after the reader's states (…, H)."""
        return F.linear(self.decoder(hidden), self.embedding.weight)

    def _inputs(self, embedded: Tensor, goal: Tensor) -> Tensor:
        repeated = goal[:, None].expand(-1, embedded.shape[1], -1)
        inputs: Tensor = self.dropout(torch.cat([embedded, repeated], 2))
        return inputs

    def _choice(self, hidden: Tensor, embedded: Tensor, goal: Tensor, sizes: Tensor) -> Tensor:
        inputs = self.dropout(torch.cat([hidden, embedded], 2))
        steps = torch.arange(inputs.shape[1], device=sizes.device)
        there = steps < sizes[:, None]
        # Each row is reversed within its own length. Padding stays at the end, so packing is not needed; its
        # backward pass is slow on CPUs.
        turned = torch.where(there, sizes[:, None] - 1 - steps, steps)
        back, _ = self.returning(_places(inputs, turned))
        attended = torch.cat([self.onward(inputs)[0], _places(back, turned)], 2)
        weights = self.attention(attended)[..., 0].masked_fill(~there, -torch.inf).softmax(1)
        pooled = (weights[..., None] * attended).sum(1)
        decided = self.decider(self.dropout(torch.cat([pooled, goal], 1)))
        outcomes: Tensor = self.outcomes(decided)
        return outcomes.view(-1, 6, OUTCOMES)


def _places(values: Tensor, places: Tensor) -> Tensor:
    """Return values (N, T, D), gathered at the places of each row, (N, T)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _packed(gru: nn.GRU, inputs: Tensor, counts: Tensor) -> Tensor:
    """Return the states of a GRU for packed inputs; counts are the numbers of rows at each place."""
    states: Tensor = gru(PackedSequence(inputs, counts))[0].data
    return states


def gru_weights(gru: nn.GRU) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of a one-layer GRU: of inputs, of states, and the biases of both."""
    inputs, hidden, input_bias, hidden_bias = gru._flat_weights
    assert inputs is not None
    assert hidden is not None
    assert input_bias is not None
    assert hidden_bias is not None
    return inputs, hidden, input_bias, hidden_bias


def load_agent(folder: str, info: TaskInfo, device: torch.device) -> Agent:
    """Return the agent of a run, in eval mode.

    Args:
        folder: the run folder.
        info: info of the task in which the agent will negotiate.
        device: device of the agent.

    Raises:
        Refused: there is no finished run, its model is not an agent, or its vocabulary differs.
    """
    agent = open_model(folder, info, device)
    if not isinstance(agent, Agent):
        raise Refused(f"the model of the run {folder} is not a negotiating agent")
    if agent.words() != getattr(info, "words", None):
        raise Refused(f"the vocabulary of the agent of {folder} differs from the task's: use the same data")
    return agent
