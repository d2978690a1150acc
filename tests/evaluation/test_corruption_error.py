"""Summaries of the errors under common corruptions."""

from __future__ import annotations

from typing import get_args

import pytest

from robustplug.builtin.shifts import CorruptionKind
from robustplug.evaluation.corruptions import (
    ALEXNET,
    corruption_errors,
    mean_corruption_error,
    mean_error,
    relative_mean_corruption_error,
)

ERRORS = {"fog": [0.1, 0.2, 0.3, 0.4, 0.5], "snow": [0.2, 0.2, 0.2, 0.2, 0.2]}
REFERENCE = {"fog": [0.2, 0.4, 0.6, 0.8, 1.0], "snow": [0.1, 0.3, 0.4, 0.6, 0.6]}


def test_the_reference_has_an_error_of_one() -> None:
    assert mean_corruption_error(REFERENCE, REFERENCE) == pytest.approx(1)
    assert mean_corruption_error(
        {kind: [rate] * 5 for kind, rate in ALEXNET.items()}, ALEXNET
    ) == pytest.approx(1)
    assert relative_mean_corruption_error(REFERENCE, REFERENCE, 0.05, 0.05) == pytest.approx(1)


def test_errors_are_summed_over_severities_before_dividing() -> None:
    # Σ fog 1.5/3.0, Σ snow 1.0/2.0; the mean of quotients would be (2 + 2/3 + 1/2 + 1/3 + 1/3)/5 for snow.
    assert corruption_errors(ERRORS, REFERENCE) == pytest.approx({"fog": 0.5, "snow": 0.5})
    assert mean_corruption_error(ERRORS, REFERENCE) == pytest.approx(0.5)


def test_the_mean_over_kinds_weights_them_equally() -> None:
    errors = {"fog": [0.6] * 5, "snow": [0.1] * 5}
    reference = {"fog": 0.6, "snow": 0.4}
    assert mean_corruption_error(errors, reference) == pytest.approx((1 + 0.25) / 2)


def test_a_reference_may_be_five_rates_or_their_mean() -> None:
    means = {kind: sum(rates) / 5 for kind, rates in REFERENCE.items()}
    assert mean_corruption_error(ERRORS, means) == pytest.approx(mean_corruption_error(ERRORS, REFERENCE))


def test_the_relative_error_takes_the_clean_errors_away() -> None:
    # fog (1.5 − 0.25)/(3 − 0.5), snow (1 − 0.25)/(2 − 0.5)
    expected = (1.25 / 2.5 + 0.75 / 1.5) / 2
    assert relative_mean_corruption_error(ERRORS, REFERENCE, 0.05, 0.1) == pytest.approx(expected)


def test_the_plain_mean_needs_no_reference() -> None:
    assert mean_error(ERRORS) == pytest.approx((0.3 + 0.2) / 2)
    with pytest.raises(ValueError, match="no kind"):
        mean_error({})


def test_all_kinds_of_the_reference_are_wanted_and_no_other() -> None:
    with pytest.raises(ValueError, match="measure snow$"):
        mean_corruption_error({"fog": [0.1] * 5}, REFERENCE)
    with pytest.raises(ValueError, match="leave out spatter$"):
        mean_corruption_error({**ERRORS, "spatter": [0.1] * 5}, REFERENCE)
    with pytest.raises(ValueError, match="measure brightness, contrast"):
        mean_corruption_error(ERRORS, ALEXNET)


@pytest.mark.parametrize("rates", [[0.1] * 4, [0.1] * 6, [10.0] * 5, [-0.1] * 5, [float("nan")] * 5])
def test_five_rates_are_wanted(rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"fog: give 5 error rates in \[0, 1\]"):
        mean_error({"fog": rates})
    with pytest.raises(ValueError, match=r"fog: give 5 error rates in \[0, 1\]"):
        mean_corruption_error({"fog": rates}, {"fog": 0.5})


@pytest.mark.parametrize("reference", [0.0, 1.5, float("nan")])
def test_a_reference_out_of_range_is_no_reference(reference: float) -> None:
    with pytest.raises(ValueError, match="the reference's mean error rate"):
        mean_corruption_error({"fog": [0.1] * 5}, {"fog": reference})


def test_a_reference_no_worse_than_clean_gives_no_relative_error() -> None:
    with pytest.raises(ValueError, match="must be above 0.5"):
        relative_mean_corruption_error({"fog": [0.1] * 5}, {"fog": 0.5}, 0.1, 0.5)


def test_the_published_reference_is_of_the_fifteen_kinds() -> None:
    assert tuple(ALEXNET) == get_args(CorruptionKind)[:15]
    assert sum(ALEXNET.values()) / 15 == pytest.approx(0.788993, abs=1e-6)
