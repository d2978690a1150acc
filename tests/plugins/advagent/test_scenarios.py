from __future__ import annotations

import itertools

import pytest
import torch

from robustplug.api import stream
from robustplug_advagent.dialogues.layout import NO_AGREEMENT, OUTCOMES
from robustplug_advagent.dialogues.scenarios import (
    GRID,
    WALK_AWAY,
    all_scenarios,
    decide,
    gains,
    generate,
    legal,
    pareto_optimal,
    pieces,
    scores,
    worth,
)

POOLS = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 0, 3)]
VALUES = [(1, 2, 3), (0, 4, 1), (5, 0, 0)]


def rows(*parts: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([[number for part in parts for number in part]])


@pytest.mark.parametrize("counts", POOLS)
def test_exactly_the_allocations_of_a_pool_are_legal(counts: tuple[int, ...]) -> None:
    allowed = legal(torch.tensor([counts]))[0]
    expected = set(itertools.product(*(range(count + 1) for count in counts)))
    assert {tuple(pieces) for pieces in GRID[allowed[:WALK_AWAY]].tolist()} == expected
    assert not allowed[WALK_AWAY]
    assert allowed.shape == (126,)


@pytest.mark.parametrize("counts", POOLS)
@pytest.mark.parametrize(("own", "other"), list(itertools.product(VALUES, VALUES)))
def test_scores_are_those_of_every_pair_of_claims(
    counts: tuple[int, ...], own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    bundles = list(itertools.product(*(range(count + 1) for count in counts)))
    for mine in bundles:
        decision = torch.tensor([GRID.tolist().index(list(mine))])
        for theirs in [*bundles, (-1, -1, -1), (5, 5, 5)]:
            rest = tuple(count - taken for count, taken in zip(counts, mine, strict=True))
            agreed = theirs in (rest, (-1, -1, -1))
            got = scores(rows(counts, own, other, theirs), decision)
            value = sum(v * taken for v, taken in zip(own, mine, strict=True)) if agreed else 0
            left = sum(v * taken for v, taken in zip(other, rest, strict=True)) if agreed else 0
            assert [int(part) for part in got] == [value, left, int(agreed)]


def test_walking_away_leaves_both_with_nothing() -> None:
    x = rows((1, 2, 2), (4, 3, 0), (0, 1, 4), (-1, -1, -1))
    assert [int(part) for part in scores(x, torch.tensor([WALK_AWAY]))] == [0, 0, 0]
    assert pieces(torch.tensor([WALK_AWAY])).tolist() == [[0, 0, 0]]


def test_gains_are_the_scores_of_each_decision_if_the_other_side_takes_the_rest() -> None:
    x = generate(20, stream(0, "gains"))
    own, other = gains(x)
    for decision in range(WALK_AWAY + 1):
        allowed = legal(x[:, :3])[:, decision] | (decision == WALK_AWAY)
        mine, theirs, _ = scores(x, torch.full((20,), decision))
        assert torch.equal(own[allowed, decision], mine[allowed])
        assert torch.equal(other[allowed, decision], theirs[allowed])


@pytest.mark.parametrize("walk_away", [False, True])
def test_the_decision_is_the_likeliest_of_all_products(walk_away: bool) -> None:
    x = generate(30, stream(1, "decide"))
    choice = torch.randn(30, 6, OUTCOMES, generator=stream(1, "logits"))
    choice[::3, :, NO_AGREEMENT] += 4
    shares = choice.softmax(2)
    for number, decision in enumerate(decide(choice, x, walk_away).tolist()):
        counts = x[number, :3].tolist()
        best, likeliest = -1.0, -1
        for place, taken in enumerate(GRID.tolist()):
            if any(piece > count for piece, count in zip(taken, counts, strict=True)):
                continue
            rest = [count - piece for count, piece in zip(counts, taken, strict=True)]
            product = 1.0
            for item in range(3):
                product *= float(shares[number, item, taken[item]] * shares[number, 3 + item, rest[item]])
            if product > best:
                best, likeliest = product, place
        nothing = float(shares[number, :, NO_AGREEMENT].prod())
        assert decision == (WALK_AWAY if walk_away and nothing > best else likeliest)


def test_generated_scenarios_keep_the_published_constraints() -> None:
    known = all_scenarios()
    counts, one, other = known[:, :3], known[:, 3:6], known[:, 6:9]
    assert len({tuple(scenario) for scenario in known.tolist()}) == len(known) == 5295
    assert set(counts.sum(1).tolist()) == {5, 6, 7}
    assert int(counts.min()) == 1
    assert int(counts.max()) == 4
    assert (worth(counts, one) == 10).all()
    assert (worth(counts, other) == 10).all()
    assert (one + other > 0).all()
    assert ((one > 0) & (other > 0)).any(1).all()
    drawn = generate(200, stream(0, "draw"))
    assert torch.equal(drawn, generate(200, stream(0, "draw")))
    assert not torch.equal(drawn, generate(200, stream(1, "draw")))
    assert (drawn[:, 9:] == -1).all()
    allowed = {tuple(scenario) for scenario in known.tolist()}
    assert all(tuple(scenario) in allowed for scenario in drawn[:, :9].tolist())


def test_an_allocation_is_pareto_optimal_if_no_other_is_better_for_one_and_worse_for_none() -> None:
    x = torch.tensor([[1, 2, 2, 4, 3, 0, 0, 1, 4, -1, -1, -1]])
    allowed = legal(x[:, :3])[0].nonzero()[:, 0]
    own, other = (each[0] for each in gains(x))
    found = pareto_optimal(x.expand(len(allowed), -1), allowed)
    pairs = [(int(own[decision]), int(other[decision])) for decision in allowed]
    for (a, b), optimal in zip(pairs, found.tolist(), strict=True):
        assert optimal == (not any(c >= a and d >= b and (c, d) != (a, b) for c, d in pairs))
    # The balls are worth nothing to the own side, so keeping one is not optimal; giving both can be.
    assert found.any()
    assert not found.all()
