"""Scenarios, decisions and scores of negotiations."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import CLAIM, COUNTS, MOST, NO_AGREEMENT, OTHER, OWN

TOTAL = 10
"""Value of all items together, to each side."""
PIECES = range(5, 8)
"""Possible total numbers of pieces."""

GRID = torch.tensor(list(itertools.product(range(MOST + 1), repeat=3)))
"""All ways to take 0 to 4 pieces of three items, (125, 3); each row is an allocation."""
WALK_AWAY = len(GRID)
"""The decision to agree on nothing: both sides get 0."""


class Answer(NamedTuple):
    """Hold the decisions of an agent that is asked in words, and what its part in the dialogues cost.

    Attributes:
        words: zeros (N, 1, V): such an agent exposes no scores.
        choice: logits (N, 6, 8) of the outcome of each item for the own side, then for the other: 0 for the
            decision and below for all others; −∞ for every number of pieces if the agent gave no decision.
        costs: by name, the numbers of each dialogue, (N,).
    """

    words: Tensor
    choice: Tensor
    costs: Mapping[str, Tensor]


@functools.cache
def all_scenarios() -> Tensor:
    """Return every scenario that the published constraints allow, int64 (S, 9).

    A scenario has three items with 1 to 4 pieces each and 5 to 7 in total. Values are whole numbers from 0
    to 10 with a total of 10 for each side. No item is worthless to both sides, and at least one item is worth
    something to both. Rows are counts, values of one side, values of the other.
    """
    rows = []
    for counts in itertools.product(range(1, MOST + 1), repeat=3):
        if sum(counts) not in PIECES:
            continue
        choices = [range(TOTAL // count + 1) for count in counts]
        values = [v for v in itertools.product(*choices) if sum(map(int.__mul__, counts, v)) == TOTAL]
        for one, other in itertools.product(values, repeat=2):
            pairs = list(zip(one, other, strict=True))
            if all(a or b for a, b in pairs) and any(a and b for a, b in pairs):
                rows.append((*counts, *one, *other))
    return torch.tensor(rows)


def generate(count: int, rng: torch.Generator) -> Tensor:
    """Draw scenarios uniformly from all allowed ones, as rows (count, 12) without a dialogue."""
    known = all_scenarios()
    return as_rows(known[torch.randint(len(known), (count,), generator=rng)])


def as_rows(scenarios: Tensor) -> Tensor:
    """Turn scenarios (N, 9) into rows (N, 12) without claims."""
    return torch.cat([scenarios, scenarios.new_full((len(scenarios), 3), -1)], 1)


def legal(counts: Tensor) -> Tensor:
    """Return which allocations each pool (N, 3) allows: bool (N, 126); False for walking away."""
    fits = (GRID.to(counts.device) <= counts[:, None]).all(2)
    return torch.cat([fits, fits.new_zeros(len(fits), 1)], 1)


def worth(values: Tensor, taken: Tensor) -> Tensor:
    """Return Σ_i value_i · pieces_i for values (N, 3) and pieces (N, 3): int64 (N,)."""
    return (values * taken).sum(1)


def pieces(decision: Tensor) -> Tensor:
    """Return the pieces that decisions, int64 (N,), take: (N, 3); none for walking away."""
    table = torch.cat([GRID, GRID.new_zeros(1, 3)]).to(decision.device)
    return table[decision]


def place_of(pieces: Sequence[int]) -> int:
    """Return the number of an allocation: its row in GRID."""
    books, hats, balls = pieces
    return int(25 * books + 5 * hats + balls)


def scores(x: Tensor, decision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score negotiations: what the own side gets, what the other side gets, and whether they agree.

    Without an agreement both get 0. A side that claims whatever is left always agrees, unless the own
    side walks away.

    Args:
        x: rows (N, 12 + T).
        decision: decision of the own side, int64 (N,).

    Returns:
        Scores of 0 to 10, int64 (N,) each, and bool (N,).
    """
    own = pieces(decision)
    rest = x[:, COUNTS] - own
    claimed = x[:, CLAIM]
    agree = ((claimed < 0) | (claimed == rest)).all(1) & (decision != WALK_AWAY)
    return worth(x[:, OWN], own) * agree, worth(x[:, OTHER], rest) * agree, agree


def gains(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of both sides for each decision of the own side, if the other side takes the rest.

    Args:
        x: rows (N, 12 + T).

    Returns:
        Scores of the own side and of the other, int64 (N, 126) each; 0 for walking away. Scores of illegal
        allocations have no meaning.
    """
    grid = GRID.to(x.device)
    own = x[:, OWN] @ grid.T
    other = (x[:, None, COUNTS] - grid).mul(x[:, None, OTHER]).sum(2)
    zero = own.new_zeros(len(x), 1)
    return torch.cat([own, zero], 1), torch.cat([other, zero], 1)


def pareto_optimal(x: Tensor, decision: Tensor) -> Tensor:
    """Return whether no other allocation is better for one side and no worse for the other: bool (N,).

    Args:
        x: rows (N, 12 + T).
        decision: decision of the own side, int64 (N,); the other side takes the rest.
    """
    both = torch.stack(gains(x), 2)
    got = both[torch.arange(len(x), device=x.device), decision][:, None]
    better = (both >= got).all(2) & (both > got).any(2) & legal(x[:, COUNTS])
    return ~better.any(1)


def decision_scores(choice: Tensor, counts: Tensor, walk_away: bool) -> Tensor:
    """Score every decision by the logits of each item's outcome: Eq. 3.6, before the argmax.

    The score of an allocation is Σ_i z_i(o_i) over the three items of the own side and of the other. It
    differs from the logarithm of the product of their probabilities by the same constant for all allocations.
    A side that gave no decision agrees on nothing, whether or not that is allowed; see `undecided`.

    Args:
        choice: logits (N, 6, 8) of the outcomes of each item for the own side, then for the other.
        counts: number of pieces of each item, (N, 3).
        walk_away: whether agreeing on nothing is allowed.

    Returns:
        Scores (N, 126); -inf for illegal decisions.
    """
    grid = GRID.to(choice.device)
    own = sum(choice[:, item, grid[:, item]] for item in range(3))
    rest = (counts[:, None] - grid).clamp_min(0).transpose(1, 2)
    other = choice[:, 3:].gather(2, rest).sum(1)
    nothing = choice[:, :, NO_AGREEMENT].sum(1, keepdim=True)
    allowed = legal(counts)
    allowed[:, WALK_AWAY] = undecided(choice) | walk_away
    return torch.cat([own + other, nothing], 1).masked_fill(~allowed, -torch.inf)


def undecided(choice: Tensor) -> Tensor:
    """Return which sides gave no decision: the logits of every number of pieces are −∞. bool (N,)."""
    return choice[:, :3, : MOST + 1].isneginf().flatten(1).all(1)


def decide(choice: Tensor, x: Tensor, walk_away: bool = False) -> Tensor:
    """Return the decision with the largest score, int64 (N,): Eq. 3.6.

    Args:
        choice: logits (N, 6, 8).
        x: rows (N, 12 + T).
        walk_away: whether agreeing on nothing is allowed.
    """
    return decision_scores(choice, x[:, COUNTS], walk_away).argmax(1)


def without_dialogue(x: Tensor) -> Tensor:
    """Return rows without dialogue and claims, (N, 12)."""
    return as_rows(x[:, : CLAIM.start])
