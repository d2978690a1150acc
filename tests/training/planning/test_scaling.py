"""The model of an update on many devices, against arithmetic by hand."""

from __future__ import annotations

import pytest

from robustplug.training.planning.scaling import (
    Links,
    UpdateCost,
    breaks,
    exchange_seconds,
    fitted,
    predict,
    whole_nodes,
)

LINKS = Links(within=100.0, between=10.0, latency=0.5)


def messages(count: int, size: float, speed: float, latency: float) -> float:
    """Send the parts of a ring all-reduce one after the other: first the sums, then the results."""
    seconds = 0.0
    for _ in ("reduce-scatter", "all-gather"):
        for _ in range(count - 1):
            seconds += size / count / speed + latency
    return seconds


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 2), (1, 8), (4, 1), (8, 8)])
def test_an_exchange_is_a_ring_in_each_node_and_one_between_them(nodes: int, gpus: int) -> None:
    expected = messages(gpus, 1000.0, 100.0, 0.5) + messages(nodes, 1000.0, 10.0, 0.5)
    assert exchange_seconds(1000.0, nodes, gpus, LINKS) == pytest.approx(expected)


def test_a_line_goes_through_what_was_measured() -> None:
    assert fitted({2: 1.0, 4: 1.4, 8: 2.2}) == pytest.approx((0.6, 0.2))
    assert fitted({4: 2.0}) == (0.0, 0.5)
    # Noise: a larger update that took less time, and one that took more than in proportion.
    assert fitted({2: 3.0, 4: 2.0}) == (0.0, 0.5)
    assert fitted({2: 1.0, 4: 3.0}) == (0.0, 0.75)


def test_an_update_is_computing_and_one_exchange() -> None:
    cost = UpdateCost(fixed=0.25, row=0.01, gradients=800, memory=2.0)
    one = predict(cost, 100, 1, 1, LINKS)
    assert one.seconds == pytest.approx(1.25)
    assert one.exchange == 0.0
    assert one.efficiency == pytest.approx(1.0 / 1.25)
    many = predict(cost, 100, 2, 8, LINKS)
    # The slowest of 16 devices has 7 rows; the memories of 100 rows are exchanged, too.
    assert many.rows == 7
    assert many.computing == pytest.approx(0.32)
    assert many.exchange == pytest.approx(exchange_seconds(1000.0, 2, 8, LINKS))
    assert many.efficiency == pytest.approx(1.0 / 16 / many.seconds)


def test_the_model_says_where_it_breaks_and_why() -> None:
    free = Links(within=1e30, between=1e30, latency=0.0)
    assert breaks(UpdateCost(0.0, 1.0, 8), 64, 8, free) == (65, "a device has no row left")
    at, why = breaks(UpdateCost(0.1, 0.01, 8), 64, 8, free)
    assert (at, why) == (8, "the fixed part of an update takes more time than the rows")
    at, why = breaks(UpdateCost(0.0, 1.0, 10_000), 64, 8, Links(within=1e9, between=10.0, latency=0.0))
    assert (at, why) == (16, "the exchange of gradients takes more time than the rows")
    slower = predict(UpdateCost(0.0, 1.0, 10_000), 64, 2, 8, Links(1e9, 10.0, 0.0))
    assert slower.efficiency < 0.5 < predict(UpdateCost(0.0, 1.0, 10_000), 64, 1, 8, LINKS).efficiency + 0.5


def test_nodes_are_used_as_a_whole() -> None:
    assert [whole_nodes(each, 8) for each in (1, 8, 64, 512)] == [(1, 1), (1, 8), (8, 8), (64, 8)]
    assert [whole_nodes(each, 6) for each in (8, 64, 512)] == [(1, 6), (11, 6), (85, 6)]
    assert whole_nodes(8, 100) == (1, 8)
    # The model breaks at a number of devices that nodes of six can have.
    links = Links(within=1e30, between=1e30, latency=0.0)
    cost = UpdateCost(0.09, 0.01, 8)
    assert breaks(cost, 64, 6, links)[0] == 12
    assert predict(cost, 64, 1, 6, links).efficiency > 0.5 > predict(cost, 64, 2, 6, links).efficiency
