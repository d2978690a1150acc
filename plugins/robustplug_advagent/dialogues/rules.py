"""The rules of the game as a vicinity: the legal dialogues of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from robustplug.api import Batch, Refused, Step

from .layout import CLAIM, COUNTS, EOS, HEAD, MOST, PAD, SELECTION, THEM, UNKNOWN, YOU, known, lengths

if TYPE_CHECKING:
    from ..options import RulesOptions


class Parts(NamedTuple):
    """Hold the position of each word in dialogues (N, T).

    Attributes:
        there: whether it is a word, not padding, bool.
        speaker: its speaker, YOU or THEM; 0 for none.
        start: place of the speaker's name before it.
        turn: number of its turn, from 0; −1 before the first.
    """

    there: Tensor
    speaker: Tensor
    start: Tensor
    turn: Tensor


def parts(words: Tensor) -> Parts:
    """Find the turns of dialogues, int64 (N, T)."""
    there = words != PAD
    named = (words == YOU) | (words == THEM)
    places = torch.arange(words.shape[1], device=words.device)
    start = torch.where(named, places, -1).cummax(1).values if words.shape[1] else places.expand_as(words)
    speaker = words.gather(1, start.clamp_min(0)) if words.shape[1] else words
    return Parts(there, speaker.masked_fill(start < 0, 0), start, named.long().cumsum(1) - 1)


def own_words(words: Tensor) -> Tensor:
    """Return which words are the own side's, <eos> and <selection> included: bool (N, T)."""
    found = parts(words)
    return found.there & (found.speaker == YOU) & (words != YOU)


def drawn_words(words: Tensor, turns: int, most: int) -> Tensor:
    """Return which of the own words were drawn and can be learned from: bool (N, T).

    The rules force <selection> after the last turn and <eos> after the last word. A penalty on these words
    would lower the probability of ending a dialogue, and make the next one even longer.

    Args:
        words: words of the dialogues, int64 (N, T).
        turns: largest number of turns of a dialogue.
        most: largest number of words of a turn.
    """
    found = parts(words)
    places = torch.arange(words.shape[1], device=words.device)
    said_for_it = (found.turn == turns - 1) | (places - found.start == most + 1)
    return own_words(words) & ~said_for_it


def allowed(x: Tensor, turns: int, words: int, unknown: bool = False) -> Tensor:
    """Return which dialogues follow the rules: bool (N,).

    Sides alternate. Each turn but the last ends with <eos>. The last turn is <selection> alone, which occurs
    nowhere else. No turn has more than `words` words, no dialogue more than `turns` turns. No word is
    unknown, unless that is allowed. The other side claims nothing, or no more than exists.

    Args:
        x: rows (N, 12 + T).
        turns, words: largest number of turns of a dialogue, and of words of a turn.
        unknown: whether words outside the vocabulary are allowed.
    """
    said, sizes = x[:, HEAD:], lengths(x)
    if not said.shape[1]:
        return sizes > 0
    there, speaker, start, turn = parts(said)
    places = torch.arange(said.shape[1], device=x.device)
    named = (said == YOU) | (said == THEM)
    before = torch.nn.functional.pad(said, (1, 0), value=EOS)[:, :-1]
    who_before = torch.nn.functional.pad(speaker, (1, 0))[:, :-1]
    last = places == sizes[:, None] - 1
    fine = there == (places < sizes[:, None])
    fine &= ~there | (named == (before == EOS))
    fine &= ~named | (speaker != who_before)
    fine &= (said == SELECTION) == (last & there)
    fine &= ~last | (places - start == 1)
    fine &= ~there | (places - start - (said == EOS).long() <= words)
    fine &= ~there | ((turn < turns) & (said > 0))
    if not unknown:
        fine &= known(said) != UNKNOWN
    claim, counts = x[:, CLAIM], x[:, COUNTS]
    taken = (claim >= 0) & (claim <= counts)
    claimed = (claim == -1).all(1) | (claim == MOST + 1).all(1) | taken.all(1)
    return (sizes > 0) & fine.all(1) & claimed


class Rules:
    """The dialogues that the rules of the game allow for a scenario.

    The scenario itself, before the first turn, is one of them. An unchanged human dialogue is always legal.
    The vicinity has no distance: `eps` has no meaning.
    """

    norm: float | None = None

    def __init__(self, options: RulesOptions) -> None:
        self.eps = 0.0
        self.turns, self.words, self.unknown = options.turns, options.words, options.unknown

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Return for each sample whether x, (N, 12 + T), is a legal dialogue about its origin's scenario."""
        start = slice(0, CLAIM.start)
        same_scenario = (x[:, start] == origin[:, start]).all(1)
        unchanged = x.shape == origin.shape and (x == origin).all(1)
        return (allowed(x, self.turns, self.words, self.unknown) & same_scenario) | unchanged

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Refuse.

        Raises:
            Refused: dialogues have no distance.
        """
        raise Refused("a negotiation has no nearest legal dialogue; use an attack made for negotiations")

    def steepest(self, gradient: Tensor) -> Tensor:
        """Refuse.

        Raises:
            Refused: dialogues have no directions.
        """
        raise Refused("a negotiation has no directions; use an attack made for negotiations")

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Refuse.

        Raises:
            Refused: random words are not the agent's own turns.
        """
        raise Refused("a negotiation has no random dialogue; use an attack made for negotiations")
