"""Simulate negotiations: many at once, turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustplug.api import Step, stream

from ..dialogues.layout import CLAIM, COUNTS, HEAD, MOST, PAD, THEM, YOU, swapped
from ..dialogues.scenarios import WALK_AWAY, decide, pieces
from .streams import streamed
from .voice import Memory, Speaker, Utterance, Voice, ending

NOTHING = MOST + 1
"""Claim, for each item, of a side that agrees on nothing."""

TARGET, ADVERSARY = 0, 1
Say = Callable[["Talk", Tensor, Tensor], Utterance]
"""What the adversary says, given the talk, the rows where it is the adversary's turn, and their noise."""


@dataclass
class Talk:
    """Hold unfinished dialogues, as the target sees them.

    Attributes:
        scenarios: rows (N, 12).
        sides: the target and the adversary.
        turn: number of the current turn, from 0.
        words: words so far, padded: (N, T).
        sizes: number of words of each dialogue, (N,).
        open: whether neither side has said <selection> yet, bool (N,).
        heard: state of both sides; not kept for agents that `play` lets negotiate by themselves.
        forced: whether the next turn must be <selection>, bool (N,).
        asked: number of turns that the target was asked for; those that the rules said for it do not count.
    """

    scenarios: Tensor
    sides: tuple[Speaker, Speaker]
    turn: int = 0
    asked: int = 0
    words: Tensor = field(init=False)
    sizes: Tensor = field(init=False)
    open: Tensor = field(init=False)
    forced: Tensor = field(init=False)
    heard: list[Memory] = field(init=False)

    def __post_init__(self) -> None:
        x = self.scenarios
        self.words = x.new_full((len(x), 0), PAD)
        self.sizes = x.new_zeros(len(x))
        self.open = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.forced = torch.zeros_like(self.open)
        self.heard = [self.sides[TARGET].begin(x), self.sides[ADVERSARY].begin(swapped(x))]

    def rows_so_far(self) -> Tensor:
        """Return the dialogues so far as rows (N, 12 + T)."""
        return torch.cat([self.scenarios, self.words], 1)

    def add(self, side: int, rows: Tensor, said: Utterance) -> None:
        """Append a turn of one side to the dialogues at some positions, int64, and update both sides."""
        for listener in (TARGET, ADVERSARY):
            who = YOU if listener == side else THEM
            new = self.sides[listener].hear(self.heard[listener].rows(rows), said, who)
            self.heard[listener] = self.heard[listener].put(rows, new)
        name = YOU if side == TARGET else THEM
        longest = int((self.sizes[rows] + said.sizes).max()) + 1
        if longest > self.words.shape[1]:
            more = longest - self.words.shape[1]
            self.words = torch.nn.functional.pad(self.words, (0, more), value=PAD)
        start = self.sizes[rows]
        self.words[rows, start] = name
        steps = torch.arange(said.words.shape[1], device=start.device)
        there = steps < said.sizes[:, None]
        places = start[:, None] + 1 + steps
        self.words[rows[:, None].expand_as(places)[there], places[there]] = said.words[there]
        self.sizes[rows] += said.sizes + 1
        self.open[rows] &= ~said.ends


def draw_noise(count: int, turns: int, words: int, rng: torch.Generator) -> Tensor:
    """Draw the random numbers of negotiations, (N, turns, words + 1) in [0, 1)."""
    return torch.rand(count, turns, words + 1, generator=rng, device=rng.device)


def noise_of(step: Step, index: Tensor, turns: int, words: int) -> tuple[Tensor, Tensor]:
    """Draw the randomness of negotiations, for each sample from a generator of its own.

    A dialogue is the same in any batch, and on any process.

    Args:
        step: the step, whose seed and pass the generators depend on.
        index: sample ids, int64 (N,), at least one.
        turns, words: largest number of turns of a dialogue, and of words of a turn.

    Returns:
        The side that speaks first, int64 (N,), and the random numbers, (N, turns, words + 1) in [0, 1).
    """
    drawn = [
        torch.rand(
            1 + turns * (words + 1), generator=stream(step.seed, "negotiation", step.pass_.name, sample)
        )
        for sample in index.tolist()
    ]
    numbers = torch.stack(drawn).to(index.device)
    return (2 * numbers[:, 0]).long(), numbers[:, 1:].view(-1, turns, words + 1)


def play(
    scenarios: Tensor,
    target: Speaker,
    adversary: Speaker,
    first: Tensor,
    noise: Tensor,
    say: Say | None = None,
) -> Talk:
    """Negotiate about scenarios until one side says <selection>, or turns run out.

    A dialogue depends only on its own scenario, first speaker and noise, not on the other dialogues.

    Args:
        scenarios: rows (N, 12) as the target sees them.
        target, adversary: the two sides.
        first: side that speaks first, TARGET or ADVERSARY, int64 (N,).
        noise: random numbers, (N, turns, words + 1); the last turn is <selection>.
        say: replacement for what the adversary would say; None for no replacement.
    """
    talk = Talk(scenarios, (target, adversary))
    if say is None and isinstance(target, Voice) and isinstance(adversary, Voice):
        talk.words, talk.sizes, talk.asked = streamed(scenarios, target, adversary, first, noise)
        talk.open[:] = False
        return talk
    turns = noise.shape[1]
    for turn in range(turns):
        talk.turn = turn
        speaking = (first + turn) % 2
        for side in (TARGET, ADVERSARY):
            here = talk.open & (speaking == side)
            closing = (here & (talk.forced | (turn == turns - 1))).nonzero()[:, 0]
            if len(closing):
                talk.add(side, closing, ending(len(closing), closing.device))
            rows = (here & talk.open).nonzero()[:, 0]
            if not len(rows):
                continue
            if side == ADVERSARY and say is not None:
                said = say(talk, rows, noise[rows, turn])
            else:
                said = talk.sides[side].speak(talk.heard[side].rows(rows), noise[rows, turn])
                talk.asked += len(rows) * (side == TARGET)
            talk.add(side, rows, said)
        if not talk.open.any():
            break
    return talk


def claims(talk: Talk, walk_away: bool) -> Tensor:
    """Return what the adversary takes by its own decision, (N, 3)."""
    x = swapped(talk.rows_so_far())
    return claim_of(decide(talk.sides[ADVERSARY].choice(x), x, walk_away))


def claim_of(decision: Tensor) -> Tensor:
    """Return what a side takes by its decision, (N, 3); NOTHING of each item if it walks away."""
    return torch.where((decision == WALK_AWAY)[:, None], NOTHING, pieces(decision))


def with_claims(x: Tensor, claimed: Tensor) -> Tensor:
    """Return rows with what the other side takes filled in."""
    return torch.cat([x[:, COUNTS.start : CLAIM.start], claimed, x[:, HEAD:]], 1)
