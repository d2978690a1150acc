"""Batches of samples of similar lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from robustplug.core import batches as made_of
from robustplug.core.batches import POOL, index_batches, to_device
from robustplug.core.types import Feed, take

SIZE = 1003
LENGTHS = torch.randint(1, 200, (SIZE,), generator=torch.Generator().manual_seed(0))


def batches(**changes: object) -> Sequence[torch.Tensor]:
    settings = {"batch_size": 8, "shuffle": True, **changes}
    return list(index_batches(SIZE, Feed(**settings), LENGTHS))  # type: ignore[arg-type]


def test_every_sample_comes_once_and_the_smaller_batch_last() -> None:
    found = batches()
    assert torch.cat(list(found)).sort().values.tolist() == list(range(SIZE))
    assert [len(batch) for batch in found] == [8] * (SIZE // 8) + [SIZE % 8]


def test_batches_hold_samples_of_similar_lengths_and_come_in_no_order() -> None:
    def padding(found: Sequence[torch.Tensor]) -> float:
        return sum(float(LENGTHS[rows].max() - LENGTHS[rows].float().mean()) for rows in found)

    plain = list(index_batches(SIZE, Feed(batch_size=8, shuffle=True)))
    assert padding(batches()) < 0.15 * padding(plain)
    longest = torch.tensor([int(LENGTHS[rows].max()) for rows in batches()[:POOL]])
    assert not torch.equal(longest, longest.sort().values)


def test_the_order_depends_on_seed_and_epoch_and_can_be_skipped_and_shared_out() -> None:
    first = batches()
    assert all(map(torch.equal, first, batches()))
    assert not torch.equal(first[0], batches(epoch=1)[0])
    assert not torch.equal(first[0], batches(seed=1)[0])
    assert all(map(torch.equal, first[5:], batches(skip=5)))
    shares = [batches(world=2, rank=rank) for rank in (0, 1)]
    for whole, *parts in zip(first, *shares, strict=True):
        assert all(torch.equal(whole[rank::2], part) for rank, part in enumerate(parts))


@pytest.mark.parametrize("size", [1, 7, 8])
def test_few_samples_are_enough(size: int) -> None:
    (found,) = index_batches(size, Feed(batch_size=8, shuffle=True), LENGTHS)
    assert found.sort().values.tolist() == list(range(size))


def test_the_stored_order_is_left_alone() -> None:
    found = list(index_batches(20, Feed(batch_size=8), LENGTHS))
    assert torch.cat(found).tolist() == list(range(20))


class Pair(NamedTuple):
    first: torch.Tensor
    second: tuple[torch.Tensor, str]


def test_rows_of_named_tuples_are_named_tuples() -> None:
    whole = Pair(torch.arange(4), (torch.arange(8).view(4, 2), "name"))
    part = take(whole, torch.tensor([True, False, False, True]))
    assert isinstance(part, Pair)
    assert part.first.tolist() == [0, 3]
    assert part.second[0].tolist() == [[0, 1], [6, 7]]
    assert part.second[1] == "name"


def test_the_order_of_the_next_epoch_is_made_ahead_and_cannot_be_changed_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    randperm = torch.randperm

    def counted(*arguments: object, **more: object) -> torch.Tensor:
        made.append(1)
        return randperm(*arguments, **more)  # type: ignore[call-overload, no-any-return]

    made_of._permutation.cache_clear()
    monkeypatch.setattr(torch, "randperm", counted)
    feed = Feed(batch_size=4, shuffle=True, seed=11)
    first = index_batches(10, feed)
    rows = [next(first)]
    assert len(made) == 1
    rows += [next(first)]  # the device is busy with the first batch
    assert len(made) == 2
    rows += list(first)
    again = [part.clone() for part in rows]
    for part in rows:
        part.zero_()
    assert torch.equal(torch.cat(list(index_batches(10, feed))), torch.cat(again))
    second = index_batches(10, Feed(batch_size=4, shuffle=True, seed=11, epoch=1))
    assert not torch.equal(next(second), again[0])
    assert len(made) == 2


def test_a_tensor_for_the_cpu_stays_the_same() -> None:
    x = torch.arange(3)
    assert to_device(x, "cpu") is x
