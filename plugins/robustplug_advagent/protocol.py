"""Attack an agent of your own: what it must do, and the adapter that lets it negotiate here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robustplug.api import Refused

from .agents.agent import Reading
from .agents.voice import Utterance
from .dialogues.layout import (
    COUNTS,
    EOS,
    HEAD,
    ITEMS,
    NO_AGREEMENT,
    OUTCOMES,
    OWN,
    PAD,
    SELECTION,
    YOU,
    Words,
    turns,
)
from .dialogues.scenarios import GRID, WALK_AWAY

if TYPE_CHECKING:
    from .dialogues.task import NegotiationInfo

_FAR = -100.0


@dataclass(frozen=True)
class Goal:
    """Tell an agent what it negotiates about.

    Attributes:
        counts: pieces of each item, by name: book, hat, ball.
        values: what a piece is worth to the agent.
    """

    counts: Mapping[str, int]
    values: Mapping[str, int]


class Turn(NamedTuple):
    """Hold what somebody said.

    Attributes:
        mine: the agent said it itself.
        text: words, separated by spaces; "<selection>" ends the dialogue.
    """

    mine: bool
    text: str


class NegotiatingAgent(Protocol):
    """An agent that can be attacked; it sees one dialogue at a time and remembers nothing between calls."""

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        """Return what to say next: words, or "<selection>" to end the dialogue."""
        ...

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int] | None:
        """Return the pieces to take of each item after the dialogue.

        None, to agree on nothing, needs a task with walk_away = true.
        """
        ...


@runtime_checkable
class OpenAgent(Protocol):
    """An agent that also shows what it thinks, as white-box attacks need it."""

    def logits(
        self, goal: Goal, dialogue: Sequence[Turn]
    ) -> tuple[Mapping[str, float], Mapping[tuple[int, int, int], float]]:
        """Return scores of the first word of the next turn, and of each allocation (books, hats, balls).

        What is left out has a score of −∞. After a dialogue that ended, no word needs a score.
        """
        ...


class Transcripts(NamedTuple):
    """Hold what was said in some dialogues.

    Attributes:
        goals: of the agent.
        said: turns so far.
    """

    goals: tuple[Goal, ...]
    said: tuple[tuple[Turn, ...], ...]

    def rows(self, keep: Tensor) -> Transcripts:
        """Return those of some dialogues."""
        places = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        chosen = places.tolist()
        return Transcripts(tuple(self.goals[at] for at in chosen), tuple(self.said[at] for at in chosen))

    def put(self, rows: Tensor, new: Transcripts) -> Transcripts:
        """Return a copy with others in some places."""
        goals, said = list(self.goals), list(self.said)
        for at, goal, turns_ in zip(rows.tolist(), *new, strict=True):
            goals[at], said[at] = goal, turns_
        return Transcripts(tuple(goals), tuple(said))


class OwnAgent(nn.Module):
    """Let an agent of your own negotiate here, as the target of any attack.

    Args:
        agent: speaks and decides.
        info: of the task, `task.info`. Words that are not in its vocabulary reach the agent, and come from
            it, as <unk>.

    Raises:
        TypeError: the agent cannot speak or decide.
    """

    def __init__(self, agent: NegotiatingAgent, info: NegotiationInfo) -> None:
        super().__init__()
        missing = [name for name in ("speak", "decide") if not callable(getattr(agent, name, None))]
        if missing:
            raise TypeError(f"{type(agent).__name__} has no method {' and none '.join(missing)}")
        # Not as an attribute that torch looks at: an agent need not be a module.
        self.__dict__["agent"] = agent
        self.vocabulary, self.walk_away = info.words, info.walk_away

    def forward(self, x: Tensor) -> Reading:
        """Return outcomes that say the agent's decisions after dialogues (N, 12 + T), and no words.

        It is not asked before anyone has spoken.

        Raises:
            Refused: a decision is not legal.
        """
        choice = x.new_full((len(x), 6, OUTCOMES), _FAR, dtype=torch.float32)
        for row, (goal, dialogue) in enumerate(self.told(x)):
            if not dialogue:
                continue
            decision = self.decision(goal, dialogue)
            if decision == WALK_AWAY:
                choice[row, :, NO_AGREEMENT] = 0
                continue
            for item, (count, taken) in enumerate(
                zip(goal.counts.values(), GRID[decision].tolist(), strict=True)
            ):
                choice[row, item, taken] = choice[row, 3 + item, count - taken] = 0
        return Reading(choice.new_zeros(len(x), 1, len(self.vocabulary)), choice)

    def decision(self, goal: Goal, dialogue: Sequence[Turn]) -> int:
        """Ask the agent for its decision, and return its number.

        Raises:
            Refused: it takes what there is not, or walks away where that is not allowed.
        """
        taken = self.__dict__["agent"].decide(goal, dialogue)
        if taken is None:
            if not self.walk_away:
                raise Refused("the agent agreed on nothing: allow that with the task's walk_away = true")
            return WALK_AWAY
        pieces = [int(taken.get(item, 0)) for item in ITEMS]
        if any(not 0 <= piece <= goal.counts[item] for item, piece in zip(ITEMS, pieces, strict=True)):
            raise Refused(f"the agent decided to take {dict(taken)} of {dict(goal.counts)}")
        return place_of(pieces)

    def told(self, x: Tensor) -> list[tuple[Goal, tuple[Turn, ...]]]:
        """Return the goal and the dialogue of each row as an agent sees them."""
        return [(goal_of(row), self._turns(row[HEAD:])) for row in x.tolist()]

    def _turns(self, words: Sequence[int]) -> tuple[Turn, ...]:
        return tuple(Turn(who == YOU, " ".join(self.vocabulary.decode(said))) for who, said in turns(words))

    def begin(self, x: Tensor) -> Transcripts:
        """Return transcripts in which nothing was said."""
        return Transcripts(*zip(*self.told(x[:, :HEAD]), strict=True)) if len(x) else Transcripts((), ())

    def hear(self, heard: Transcripts, said: Utterance, who: int) -> Transcripts:
        """Write a turn down."""
        lines = [self._turns([who, *row]) for row in said.words.tolist()]
        return heard._replace(said=tuple(a + b for a, b in zip(heard.said, lines, strict=True)))

    def speak(self, heard: Transcripts, noise: Tensor, may_end: bool = True) -> Utterance:
        """Ask the agent what it says in each dialogue; what is too long is cut."""
        rows = [self.words_of(goal, said, noise.shape[1]) for goal, said in zip(*heard, strict=True)]
        return utterance(rows, noise.device)

    def words_of(self, goal: Goal, dialogue: Sequence[Turn], most: int) -> list[int]:
        """Ask the agent for its next turn and return it as numbers, <eos> or <selection> at the end."""
        text = self.__dict__["agent"].speak(goal, dialogue).split()
        if "<selection>" in text:
            return [SELECTION]
        return [*self.vocabulary.encode(text)[: most - 1], EOS]

    def choice(self, x: Tensor) -> Tensor:
        """Return outcomes that say the agent's decisions."""
        return self.forward(x).choice

    def to_play(self, words: Words) -> OwnAgent:
        """Return the agent as one side of negotiations with these words.

        Raises:
            Refused: it was adapted to other words.
        """
        if words != self.vocabulary:
            raise Refused("the agent was adapted to another vocabulary than that of the task")
        return self

    def glass(self) -> OwnGlass:
        """Return the agent as white-box attacks see it.

        Raises:
            Refused: it shows no logits.
        """
        if not isinstance(self.__dict__["agent"], OpenAgent):
            raise Refused("the agent has no method logits: only black-box attacks can be run on it")
        return OwnGlass(self)


class _Rows(NamedTuple):
    x: Tensor


class OwnGlass:
    """Ask an agent of one's own for its logits, one continuation after the other.

    Args:
        own: has `logits`.
    """

    def __init__(self, own: OwnAgent) -> None:
        self.own = own
        self._open: OpenAgent = own.__dict__["agent"]

    def recall(self, x: Tensor) -> _Rows:
        """Keep dialogues so far."""
        return _Rows(x)

    def _told(
        self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor
    ) -> list[tuple[Goal, tuple[Turn, ...]]]:
        rows = [
            [*(w for w in memory.x[at].tolist()[HEAD:] if w != PAD), *more[:size]]
            for at, more, size in zip(owner.tolist(), tail.tolist(), sizes.tolist(), strict=True)
        ]
        goals = [goal_of(row) for row in memory.x[owner].tolist()]
        return [(goal, self.own._turns(row)) for goal, row in zip(goals, rows, strict=True)]

    def judge(self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the scores (C, 126) of the decisions after continuations."""
        found = torch.full((len(owner), WALK_AWAY + 1), -torch.inf, device=owner.device)
        for row, (goal, dialogue) in enumerate(self._told(memory, owner, tail, sizes)):
            for pieces, score in self._open.logits(goal, dialogue)[1].items():
                found[row, place_of(pieces)] = score
        return found

    def next_word(self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the logits (C, V) of the first word of the agent's next turn."""
        found = torch.full((len(owner), len(self.own.vocabulary)), -torch.inf, device=owner.device)
        # The name of the speaker is no turn yet.
        for row, (goal, dialogue) in enumerate(self._told(memory, owner, tail, sizes - 1)):
            for word, score in self._open.logits(goal, dialogue)[0].items():
                found[row, self.own.vocabulary.encode([word])[0]] = score
        return found

    def reply(self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor, most: int) -> Utterance:
        """Ask the agent for its reply."""
        told = self._told(memory, owner, tail, sizes)
        return utterance([self.own.words_of(goal, said, most) for goal, said in told], owner.device)


def goal_of(row: Sequence[int]) -> Goal:
    """Return the goal of the own side of a row."""
    counts, values = row[COUNTS], row[OWN]
    return Goal(dict(zip(ITEMS, counts, strict=True)), dict(zip(ITEMS, values, strict=True)))


def place_of(pieces: Sequence[int]) -> int:
    """Return the number of an allocation, its place in `scenarios.GRID`."""
    books, hats, balls = pieces
    return int(25 * books + 5 * hats + balls)


def utterance(rows: Sequence[Sequence[int]], device: Any) -> Utterance:
    """Pad turns and return them with their sizes."""
    width = max(map(len, rows), default=1)
    words = [[*row, *[PAD] * (width - len(row))] for row in rows]
    return Utterance(
        torch.tensor(words, device=device).view(-1, width),
        torch.tensor([len(row) for row in rows], device=device),
    )
