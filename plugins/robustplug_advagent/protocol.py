"""Attack your own agent: the interface it needs, and the adapter that lets it negotiate here."""

from __future__ import annotations

import math
import operator
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
    SPECIALS,
    UNKNOWN,
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
    """Describe to an agent what it negotiates about.

    Attributes:
        counts: number of pieces of each item, by name: book, hat, ball.
        values: value of a piece of each item to the agent.
    """

    counts: Mapping[str, int]
    values: Mapping[str, int]


class Turn(NamedTuple):
    """Hold one turn of a dialogue.

    Attributes:
        mine: whether the turn is the agent's own.
        text: words of the turn, separated by spaces; "<selection>" ends the dialogue.
    """

    mine: bool
    text: str


class NegotiatingAgent(Protocol):
    """An agent under attack; it sees one dialogue at a time and keeps no state between calls."""

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        """Return the next turn: words, or "<selection>" to end the dialogue."""
        ...

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int] | None:
        """Return the pieces to take of each item after the dialogue.

        Return None to agree on nothing; this needs a task with walk_away = true.
        """
        ...


@runtime_checkable
class OpenAgent(Protocol):
    """An agent that also exposes its scores, for white-box attacks."""

    def logits(
        self, goal: Goal, dialogue: Sequence[Turn]
    ) -> tuple[Mapping[str, float], Mapping[tuple[int, int, int], float]]:
        """Return scores of the first word of the next turn, and of each allocation (books, hats, balls).

        Omitted words and allocations have a score of −∞. After a dialogue that ended, no word needs a score.
        """
        ...


class Transcripts(NamedTuple):
    """Hold the turns so far of some dialogues.

    Attributes:
        goals: goal of the agent in each dialogue.
        said: turns so far of each dialogue.
    """

    goals: tuple[Goal, ...]
    said: tuple[tuple[Turn, ...], ...]

    def rows(self, keep: Tensor) -> Transcripts:
        """Return the transcripts of some dialogues."""
        places = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        chosen = places.tolist()
        return Transcripts(tuple(self.goals[at] for at in chosen), tuple(self.said[at] for at in chosen))

    def put(self, rows: Tensor, new: Transcripts) -> Transcripts:
        """Return a copy with other transcripts in some places."""
        goals, said = list(self.goals), list(self.said)
        for at, goal, turns_ in zip(rows.tolist(), *new, strict=True):
            goals[at], said[at] = goal, turns_
        return Transcripts(tuple(goals), tuple(said))


class OwnAgent(nn.Module):
    """Adapt your own agent, so that it negotiates here as the target of any attack.

    Args:
        agent: the agent, which speaks and decides.
        info: info of the task, `task.info`. The agent may say words outside its vocabulary where the rules
            allow them (`unknown = true`); dialogues with such words are discarded elsewhere.

    Raises:
        TypeError: the agent lacks `speak` or `decide`.
    """

    def __init__(self, agent: NegotiatingAgent, info: NegotiationInfo) -> None:
        super().__init__()
        missing = [name for name in ("speak", "decide") if not callable(getattr(agent, name, None))]
        if missing:
            raise TypeError(f"{type(agent).__name__} has no method {' and no method '.join(missing)}")
        # Not through torch's __setattr__: an agent that is a module must not become a submodule.
        self.__dict__["agent"] = agent
        self.vocabulary, self.walk_away = info.words, info.walk_away

    def forward(self, x: Tensor) -> Reading:
        """Return the agent's decisions after dialogues (N, 12 + T) as outcome logits, without words.

        The agent is not queried for dialogues without a turn.

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
        """Query the agent for its decision, and return the number of the decision.

        Raises:
            Refused: the decision is no mapping from items to whole numbers of pieces that exist, or the
                agent walks away where that is not allowed.
        """
        taken = self.__dict__["agent"].decide(goal, dialogue)
        if taken is None:
            if not self.walk_away:
                raise Refused("the agent agreed on nothing: allow that with walk_away = true in the task")
            return WALK_AWAY
        if not isinstance(taken, Mapping):
            raise Refused(
                f"decide returned {_shown(taken)}: return pieces by item ({', '.join(ITEMS)}), or None"
            )
        for item in taken:
            if item not in ITEMS:
                raise Refused(f"decide returned the item {_shown(item)}: the items are {', '.join(ITEMS)}")
        pieces = [_whole(taken.get(item, 0), f"decide returned {item} =") for item in ITEMS]
        for item, piece in zip(ITEMS, pieces, strict=True):
            if not 0 <= piece <= goal.counts[item]:
                have = goal.counts[item]
                raise Refused(f"decide returned {item} = {piece}, but there are {have}")
        return place_of(pieces)

    def told(self, x: Tensor) -> list[tuple[Goal, tuple[Turn, ...]]]:
        """Return the goal and the dialogue of each row as an agent sees them."""
        return [(goal_of(row), self._turns(row[HEAD:])) for row in x.tolist()]

    def _turns(self, words: Sequence[int]) -> tuple[Turn, ...]:
        return tuple(Turn(who == YOU, " ".join(self.vocabulary.decode(said))) for who, said in turns(words))

    def begin(self, x: Tensor) -> Transcripts:
        """Return transcripts without turns."""
        return Transcripts(*zip(*self.told(x[:, :HEAD]), strict=True)) if len(x) else Transcripts((), ())

    def hear(self, heard: Transcripts, said: Utterance, who: int) -> Transcripts:
        """Append a turn."""
        lines = [self._turns([who, *row]) for row in said.words.tolist()]
        return heard._replace(said=tuple(a + b for a, b in zip(heard.said, lines, strict=True)))

    def speak(self, heard: Transcripts, noise: Tensor, may_end: bool = True) -> Utterance:
        """Query the agent for a turn in each dialogue; turns that are too long are cut."""
        rows = [self.words_of(goal, said, noise.shape[1]) for goal, said in zip(*heard, strict=True)]
        return utterance(rows, noise.device)

    def words_of(self, goal: Goal, dialogue: Sequence[Turn], most: int) -> list[int]:
        """Query the agent for its next turn, and return it as numbers that end with <eos> or <selection>.

        Words outside the vocabulary keep numbers of their own, so that the agent later reads what it said.

        Raises:
            Refused: the turn is no text, or contains a word that only the rules say.
        """
        said = self.__dict__["agent"].speak(goal, dialogue)
        if not isinstance(said, str):
            raise Refused(f"speak returned {_shown(said)}: return the words of a turn as text")
        text = said.split()
        if SPECIALS[SELECTION] in text:
            return [SELECTION]
        for word in text:
            if word in SPECIALS[:UNKNOWN]:
                raise Refused(f"speak returned the word {word}, which only the rules say: leave it out")
        return [*self.vocabulary.spell(text)[: most - 1], EOS]

    def choice(self, x: Tensor) -> Tensor:
        """Return the agent's decisions as outcome logits."""
        return self.forward(x).choice

    def to_play(self, words: Words) -> OwnAgent:
        """Return the agent as one side of negotiations with these words.

        Raises:
            Refused: it was adapted to another vocabulary.
        """
        if words != self.vocabulary:
            raise Refused("the agent was adapted to another vocabulary: use OwnAgent with task.info")
        return self

    def glass(self) -> OwnGlass:
        """Return the agent as white-box attacks see it.

        Raises:
            Refused: it does not expose logits.
        """
        if not isinstance(self.__dict__["agent"], OpenAgent):
            raise Refused("the agent has no method logits: only black-box attacks can run on it")
        return OwnGlass(self)


class _Rows(NamedTuple):
    x: Tensor


class OwnGlass:
    """Query an adapted agent for its logits, one continuation at a time.

    Args:
        own: the adapted agent; it has `logits`.
    """

    def __init__(self, own: OwnAgent) -> None:
        self.own = own
        self._open: OpenAgent = own.__dict__["agent"]

    def recall(self, x: Tensor) -> _Rows:
        """Keep the dialogues so far."""
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
            scored = self._logits(goal, dialogue)[1]
            if not scored:
                raise Refused("logits returned no score of any allocation: score at least one")
            for pieces, score in scored.items():
                found[row, place_of(pieces)] = score
        return found

    def next_word(self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor) -> Tensor:
        """Return the logits (C, V) of the first word of the agent's next turn."""
        found = torch.full((len(owner), len(self.own.vocabulary)), -torch.inf, device=owner.device)
        # The speaker's name alone is not a turn.
        for row, (goal, dialogue) in enumerate(self._told(memory, owner, tail, sizes - 1)):
            for word, score in self._logits(goal, dialogue)[0].items():
                found[row, self.own.vocabulary.encode([word])[0]] = score
        return found

    def _logits(
        self, goal: Goal, dialogue: Sequence[Turn]
    ) -> tuple[Mapping[str, float], Mapping[tuple[int, int, int], float]]:
        """Query the agent for its scores, and check them.

        Raises:
            Refused: they are not scores of words of the vocabulary and of allocations that exist.
        """
        found: Any = self._open.logits(goal, dialogue)
        if not isinstance(found, Sequence) or len(found) != 2:
            raise Refused(f"logits returned {_shown(found)}: return scores of words, and of allocations")
        for name, part in zip(("words", "allocations"), found, strict=True):
            if not isinstance(part, Mapping):
                raise Refused(f"logits returned {_shown(part)} for the {name}: return a mapping to scores")
            for key, score in part.items():
                _check_score(score, f"logits returned for {_shown(key)} the score")
        words, allocations = found
        for word in words:
            if word != SPECIALS[UNKNOWN] and self.own.vocabulary.encode([word]) == [UNKNOWN]:
                raise Refused(f"logits returned a score of {_shown(word)}: score words of info.words")
        for pieces in allocations:
            if not isinstance(pieces, Sequence) or len(pieces) != len(ITEMS):
                raise Refused(f"logits returned the allocation {_shown(pieces)}: it is pieces of 3 items")
            for item, piece in zip(ITEMS, pieces, strict=True):
                if not 0 <= _whole(piece, f"logits returned {item} =") <= goal.counts[item]:
                    have = goal.counts[item]
                    raise Refused(f"logits returned {item} = {piece} in an allocation, but there are {have}")
        return words, allocations

    def reply(self, memory: _Rows, owner: Tensor, tail: Tensor, sizes: Tensor, most: int) -> Utterance:
        """Query the agent for its reply."""
        told = self._told(memory, owner, tail, sizes)
        return utterance([self.own.words_of(goal, said, most) for goal, said in told], owner.device)


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


def _whole(value: Any, what: str) -> int:
    """Return a whole number of any type.

    Raises:
        Refused: it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise Refused(f"{what} {_shown(value)}: return a whole number of pieces") from None


def _check_score(value: Any, what: str) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        raise Refused(f"{what} {_shown(value)}: return a finite number, or -inf")


def goal_of(row: Sequence[int]) -> Goal:
    """Return the goal of the own side of a row."""
    counts, values = row[COUNTS], row[OWN]
    return Goal(dict(zip(ITEMS, counts, strict=True)), dict(zip(ITEMS, values, strict=True)))


def place_of(pieces: Sequence[int]) -> int:
    """Return the number of an allocation: its row in `scenarios.GRID`."""
    books, hats, balls = pieces
    return int(25 * books + 5 * hats + balls)


def utterance(rows: Sequence[Sequence[int]], device: Any) -> Utterance:
    """Pad turns, and return them with their sizes."""
    width = max(map(len, rows), default=1)
    words = [[*row, *[PAD] * (width - len(row))] for row in rows]
    return Utterance(
        torch.tensor(words, device=device).view(-1, width),
        torch.tensor([len(row) for row in rows], device=device),
    )
