"""Dialogues written by a script, for machines without the data; they are not human dialogues.

Two scripted sides make offers in fixed phrases, lower their demands turn by turn, and accept what is
good enough. The lines have the format of Deal or No Deal and use the same parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .layout import ITEMS
from .scenarios import GRID, generate

# Smallest score that a side accepts in its first turn, its second, and so on; then it walks away.
DEMANDS = (8, 7, 6, 5, 4)
OFFERS = (
    "i would like {}",
    "can i have {} ?",
    "i need {}",
    "i want {} , you can have the rest",
    "give me {}",
)
ACCEPTS = ("deal", "ok deal", "sure , that works for me", "sounds good")
REFUSALS = ("no , ", "i cannot do that , ", "sorry , ", "")
DRAWS = 64
_ALLOCATIONS: list[list[int]] = GRID.tolist()


class _Dice:
    """Draw from a row of uniform numbers."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers = iter(numbers)

    def below(self, limit: int) -> int:
        return int(next(self._numbers) * limit)

    def one_of(self, choices: Sequence[str]) -> str:
        return choices[self.below(len(choices))]


def scripted_lines(dialogues: int, rng: torch.Generator) -> list[str]:
    """Return two lines, one for each side, for each of some scripted dialogues.

    Args:
        dialogues: number of dialogues.
        rng: a generator on the CPU.
    """
    scenarios = generate(dialogues, rng)[:, :9].tolist()
    draws = torch.rand(dialogues, DRAWS, generator=rng).tolist()
    return [
        line
        for scenario, numbers in zip(scenarios, draws, strict=True)
        for line in _both_sides(scenario, _Dice(numbers))
    ]


def bundle(pieces: Sequence[int], counts: Sequence[int]) -> str:
    """Return a phrase for some pieces of a pool, as in "the book and 2 hats"; "nothing" for none."""
    parts = []
    for item, taken, count in zip(ITEMS, pieces, counts, strict=True):
        if taken:
            amount = "the" if taken == count else str(taken)
            parts.append(f"{amount} {item}{'s' if taken > 1 else ''}")
    return " and ".join(parts) or "nothing"


def _both_sides(scenario: Sequence[int], dice: _Dice) -> Iterator[str]:
    counts, values = scenario[:3], (scenario[3:6], scenario[6:9])
    first = dice.below(2)
    said, taken = _negotiate(counts, values, first, dice)
    for side in range(2):
        words = " <eos> ".join(
            f"{'YOU:' if (first + turn) % 2 == side else 'THEM:'} {text}" for turn, text in enumerate(said)
        )
        if taken is None:
            output = " ".join(["<no_agreement>"] * 6)
        else:
            both = (*taken[side], *taken[1 - side])
            output = " ".join(f"item{place % 3}={count}" for place, count in enumerate(both))
        own, other = (
            " ".join(f"{count} {value}" for count, value in zip(counts, values[who], strict=True))
            for who in (side, 1 - side)
        )
        yield (
            f"<input> {own} </input> <dialogue> {words} </dialogue> <output> {output} </output> "
            f"<partner_input> {other} </partner_input>"
        )


def _negotiate(
    counts: Sequence[int], values: Sequence[Sequence[int]], first: int, dice: _Dice
) -> tuple[list[str], tuple[list[int], list[int]] | None]:
    """Return the turns, and what both sides take, or None for no agreement."""
    said: list[str] = []
    offered: list[int] | None = None
    for turn in range(2 * len(DEMANDS)):
        side = (first + turn) % 2
        demand = DEMANDS[turn // 2]
        if offered is not None:
            left = [count - taken for count, taken in zip(counts, offered, strict=True)]
            if _worth(values[side], left) >= demand:
                said += [dice.one_of(ACCEPTS), "<selection>"]
                return said, (left, offered) if side == 0 else (offered, left)
        offered = _offer(counts, values[side], demand, dice)
        refusal = dice.one_of(REFUSALS) if turn else ""
        said.append(refusal + dice.one_of(OFFERS).format(bundle(offered, counts)))
    return [*said, "no deal", "<selection>"], None


def _offer(counts: Sequence[int], values: Sequence[int], demand: int, dice: _Dice) -> list[int]:
    """Choose pieces worth the demand or slightly more."""
    choices: list[list[int]] = [
        pieces
        for pieces in _ALLOCATIONS
        if all(taken <= count for taken, count in zip(pieces, counts, strict=True))
        and all(not taken or value for taken, value in zip(pieces, values, strict=True))
        and _worth(values, pieces) >= demand
    ]
    choices.sort(key=lambda pieces: _worth(values, pieces))
    return choices[dice.below(min(3, len(choices)))]


def _worth(values: Sequence[int], pieces: Sequence[int]) -> int:
    return sum(value * taken for value, taken in zip(values, pieces, strict=True))
