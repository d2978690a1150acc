"""What attacks want: losses against transcriptions of Eq. 2.8 to 2.12, goals, projection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from robustplug_seq2sick.attacks.goals import Goal, draw_keywords, keyword_loss, non_overlapping_loss
from robustplug_seq2sick.attacks.projection import (
    distance_gradient,
    half_gaps,
    largest_gradient,
    nearest,
    shrunk,
)
from robustplug_seq2sick.text.search import Scores
from robustplug_seq2sick.text.words import SPECIALS, Words

SIZE = 11


def said(rows: int, most: int) -> tuple[Tensor, Tensor]:
    """Return logits of free decoding and the words they say."""
    rng = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, most + 1, SIZE, generator=rng)
    words = torch.zeros(rows, most, dtype=torch.int64)
    for row in range(rows):
        length = 1 + row % most
        words[row, :length] = 4 + torch.randint(SIZE - 4, (length,), generator=rng)
        for place in range(length):
            logits[row, place, words[row, place]] = 4
        logits[row, length, 3] = 4
    return logits, words


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_non_overlapping_loss_is_eq_2_8(margin: float) -> None:
    logits, words = said(6, 4)
    original = torch.tensor(
        [[4, 5, 6, 7, 8]] * 2 + [[9, 10, 0, 0, 0]] * 2 + [[5, 5, 5, 0, 0], [0, 0, 0, 0, 0]]
    )
    found = non_overlapping_loss(Scores.of(logits, original[..., None]), words, original, margin)
    for row in range(6):
        s = [word for word in original[row].tolist() if word]
        spoken = [word for word in words[row].tolist() if word]
        total = 0.0
        for t in range(min(len(s), len(spoken))):
            z = logits[row, t].tolist()
            total += max(-margin, z[s[t]] - max(value for y, value in enumerate(z) if y != s[t]))
        assert float(found[row]) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("mask", [True, False])
def test_the_keyword_loss_is_eq_2_12(margin: float, mask: bool) -> None:
    logits, words = said(8, 4)
    keywords = torch.tensor([[4, 5], [5, 6], [7, 4], [9, 10], [6, 8], [10, 4], [5, 9], [4, 8]])
    found = keyword_loss(Scores.of(logits, keywords[:, None]), words, keywords, margin, mask)
    for row in range(8):
        length = int((words[row] != 0).sum())
        total = 0.0
        for k in keywords[row].tolist():
            terms = {}
            for t in range(length + 1):
                z = logits[row, t].tolist()
                terms[t] = max(-margin, max(value for y, value in enumerate(z) if y != k) - z[k])
            top = [int(logits[row, t].argmax()) for t in range(length + 1)]
            free = {t: v for t, v in terms.items() if top[t] not in set(keywords[row].tolist()) - {k}}
            total += min((free if mask and free else terms).values())
        assert float(found[row]) == pytest.approx(total, abs=1e-5)


def test_keywords_do_not_collide_with_the_mask() -> None:
    # One place says 4, and 5 is a close second there; elsewhere both are far away.
    logits = torch.zeros(1, 3, SIZE)
    logits[0, 0, 4], logits[0, 0, 5] = 5.0, 4.9
    logits[0, 1, 6], logits[0, 2, 3] = 3.0, 3.0
    words, keywords = torch.tensor([[4, 6]]), torch.tensor([[4, 5]])
    scores = Scores.of(logits, keywords[:, None])
    assert float(keyword_loss(scores, words, keywords, mask=False)) == pytest.approx(0.1, abs=1e-5)
    assert float(keyword_loss(scores, words, keywords)) == pytest.approx(3.0)
    # Both there: nothing is left to gain.
    logits[0, 1, 5] = 9.0
    scores = Scores.of(logits, keywords[:, None])
    assert float(keyword_loss(scores, torch.tensor([[4, 5]]), keywords)) == 0


def test_goals_are_reached_by_what_the_thesis_says() -> None:
    original = torch.tensor([[4, 5, 6], [4, 5, 0], [0, 0, 0]])
    none = Goal(original, torch.zeros(3, 0, dtype=torch.int64))
    assert none.possible().tolist() == [True, True, False]
    assert none.reached(torch.tensor([[5, 4, 7, 6], [5, 5, 5, 5], [4, 4, 4, 4]])).tolist() == [
        True,
        False,
        False,
    ]
    # Nothing said is no success, and what is behind the end of the shorter one is not compared.
    assert none.reached(torch.tensor([[0, 0], [6, 0], [4, 0]])).tolist() == [False, True, False]
    wanted = Goal(original, torch.tensor([[7, 8], [7, 8], [7, 8]]))
    assert wanted.reached(torch.tensor([[8, 4, 7], [7, 7, 7], [7, 8, 0]])).tolist() == [True, False, False]
    missing = Goal(original, torch.tensor([[7, 0], [7, 8], [7, 8]]))
    assert missing.possible().tolist() == [False, True, False]


def pieced(pieces: Sequence[str]) -> str:
    return "".join(pieces).replace("▁", " ").strip()


def test_a_piece_that_becomes_a_longer_word_is_no_keyword() -> None:
    words = Words((*SPECIALS, "▁hund", "e", "▁die", ".", "▁a"), pieces=True, join=pieced)
    assert words.joins() is not None
    info = {"said": torch.tensor([[6]] * 4), "keywords": torch.tensor([[4]] * 4)}
    goal = Goal.of(info, words)
    assert goal is not None
    # hunde; hund.; hunde hund; hund at the end.
    spoken = torch.tensor([[4, 5, 8], [4, 7, 0], [4, 5, 4], [6, 4, 0]])
    assert goal.reached(spoken).tolist() == [False, True, True, True]
    assert goal.rows(torch.tensor([0])).reached(spoken[:1]).tolist() == [False]
    whole = Goal.of(info, Words(words.all))
    assert whole is not None
    assert bool(whole.reached(spoken).all())


def test_keywords_depend_on_the_sample_alone_and_are_new() -> None:
    original = torch.tensor([[4, 5], [6, 7], [8, 9]])
    candidates = tuple(range(4, 20))
    index = torch.tensor([3, 8, 1])
    found = draw_keywords(original, index, candidates, 3, 0)
    for row in range(3):
        alone = draw_keywords(original[row : row + 1], index[row : row + 1], candidates, 3, 0)
        assert torch.equal(alone[0], found[row])
        assert len({*found[row].tolist(), *original[row].tolist()}) == 5
    assert not torch.equal(found, draw_keywords(original, index, candidates, 3, 1))
    assert draw_keywords(original[:1], index[:1], (4, 5, 6), 2, 0).tolist() == [[6, 0]]


def test_nearest_and_its_distance_gradient() -> None:
    rng = torch.Generator().manual_seed(1)
    table, points = torch.randn(9, 5, generator=rng), torch.randn(4, 3, 5, generator=rng)
    allowed = torch.tensor([False] * 2 + [True] * 7)
    distances = (points[..., None, :] - table).norm(dim=-1).masked_fill(~allowed, math.inf)
    assert torch.equal(nearest(points, table, allowed), distances.argmin(-1))
    leaf = points.double().requires_grad_()
    total = (leaf[..., None, :] - table.double()).norm(dim=-1).masked_fill(~allowed, math.inf).amin(-1).sum()
    (expected,) = torch.autograd.grad(total, leaf)
    found = distance_gradient(points - table[nearest(points, table, allowed)])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)
    assert float(found.norm(dim=-1).min()) == pytest.approx(1, abs=1e-5)
    assert not distance_gradient(torch.zeros(1, 5)).any()


def test_within_half_a_gap_no_other_word_is_nearer() -> None:
    rng = torch.Generator().manual_seed(4)
    table = torch.randn(30, 3, generator=rng)
    allowed = torch.arange(30) > 3
    words = torch.arange(30).view(5, 6)
    gaps = half_gaps(words, table, allowed)
    distances = torch.cdist(table, table).fill_diagonal_(math.inf).masked_fill(~allowed, math.inf)
    torch.testing.assert_close(gaps, 0.499 * distances.amin(1).view(5, 6), atol=1e-3, rtol=1e-3)


def test_the_group_lasso_step_is_the_proximal_operator() -> None:
    rng = torch.Generator().manual_seed(2)
    delta = torch.randn(2, 3, 4, generator=rng)
    delta[0, 0] *= 0.01
    found = shrunk(delta, 0.5)
    assert not found[0, 0].any()

    # The proximal operator minimises ½‖p − δ‖² + a·Σ‖p_i‖: no point near it is better.
    def value(p: Tensor) -> float:
        return float(0.5 * (p - delta).square().sum() + 0.5 * p.norm(dim=-1).sum())

    for _ in range(50):
        assert value(found) <= value(found + 0.05 * torch.randn(found.shape, generator=rng)) + 1e-6


def test_the_largest_entry_has_the_gradient_of_max() -> None:
    leaf = torch.tensor([[[0.0, 2.0], [1.0, -3.0]], [[0.5, 0.1], [0.2, 0.3]]], requires_grad=True)
    (expected,) = torch.autograd.grad(leaf.flatten(1).amax(1).sum(), leaf)
    assert torch.equal(largest_gradient(leaf.detach()), expected)
