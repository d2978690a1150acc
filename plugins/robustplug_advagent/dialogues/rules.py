"""The rules of the game as a vicinity: which dialogues a scenario may become."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from robustplug.api import Batch, Refused, Step

from .layout import CLAIM, COUNTS, EOS, HEAD, MOST, PAD, SELECTION, THEM, UNKNOWN, YOU, lengths

if TYPE_CHECKING:
    from ..options import RulesOptions


class Parts(NamedTuple):
    """Say of each word of dialogues (N, T) where it stands.

    Attributes:
        there: it is no padding, bool.
        speaker: YOU or THEM, who says it; 0 for nobody.
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
    """Tell which words the own side chose, <eos> and <selection> included: bool (N, T)."""
    found = parts(words)
    return found.there & (found.speaker == YOU) & (words != YOU)


def drawn_words(words: Tensor, turns: int, most: int) -> Tensor:
    """Tell which of the own words were drawn, so that they can be learned from: bool (N, T).

    What the rules put into a mouth was no choice: <selection> when turns run out, <eos> when words do. To
    punish it would take away the probability of ending a dialogue, which makes the next one longer still.

    Args:
        words: int64 (N, T).
        turns: most turns of a dialogue.
        most: words of a turn.
    """
    found = parts(words)
    places = torch.arange(words.shape[1], device=words.device)
    said_for_it = (found.turn == turns - 1) | (places - found.start == most + 1)
    return own_words(words) & ~said_for_it


def allowed(x: Tensor, turns: int, words: int) -> Tensor:
    """Tell which dialogues follow the rules: bool (N,).

    Sides alternate; each turn but the last ends with <eos>; the last is <selection> alone, which is said
    nowhere else; no turn has more than `words` words, no dialogue more than `turns` turns. No word is
    unknown. The other side claims nothing, or not more than there is.
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
    fine &= ~there | ((turn < turns) & (said != UNKNOWN) & (said > 0))
    claim, counts = x[:, CLAIM], x[:, COUNTS]
    taken = (claim >= 0) & (claim <= counts)
    claimed = (claim == -1).all(1) | (claim == MOST + 1).all(1) | taken.all(1)
    return (sizes > 0) & fine.all(1) & claimed


class Rules:
    """The dialogues that a scenario may become under the rules of the game.

    The scenario itself, before anyone has spoken, is among them, and so is any dialogue that people had.
    No distance is measured: `eps` means nothing.
    """

    norm: float | None = None

    def __init__(self, options: RulesOptions) -> None:
        self.eps = 0.0
        self.turns, self.words = options.turns, options.words

    def sample(self, step: Step, batch: Batch) -> Batch:
        """Return the batch itself."""
        return batch

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Tell for each sample whether x, (N, 12 + T), is a dialogue about the scenario of its origin."""
        start = slice(0, CLAIM.start)
        same_scenario = (x[:, start] == origin[:, start]).all(1)
        unchanged = x.shape == origin.shape and (x == origin).all(1)
        return (allowed(x, self.turns, self.words) & same_scenario) | unchanged

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        """Refuse.

        Raises:
            Refused: no dialogue is nearer than another.
        """
        raise Refused("a negotiation has no nearest legal dialogue; use an attack made for negotiations")

    def steepest(self, gradient: Tensor) -> Tensor:
        """Refuse.

        Raises:
            Refused: words are no directions.
        """
        raise Refused("a negotiation has no directions; use an attack made for negotiations")

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        """Refuse.

        Raises:
            Refused: a random dialogue would not be one of this agent's.
        """
        raise Refused("a negotiation has no random dialogue; use an attack made for negotiations")
