"""Accuracy against a number, found in the rows of evaluations."""

from __future__ import annotations

from typing import Any

import pytest

from robustplug.core.measures import wilson_interval
from robustplug.core.types import AttackResult, Result
from robustplug.report.figures.series import find_series


def row(accuracy: float, name: str = "pgd", eps: float = 0.1, **more: Any) -> AttackResult:
    options = more.pop("options", {"use": "pgd", "steps": 10, "restarts": 1})
    threat = {"use": "linf", "eps": eps}
    return AttackResult(name, options, accuracy, 0, 0, 0, 1.0, 1.0, 1.0, threat, **more)


CLEAN = AttackResult("clean", {}, 0.9, 0, 10, 0, 1.0, 0.0, 0.1)


def result(*rows: AttackResult, samples: int = 10) -> dict[str, Result]:
    return {"suite": Result("test", samples, {"use": "linf", "eps": 0.1}, (CLEAN, *rows))}


def test_rows_that_differ_in_eps_alone_are_a_series() -> None:
    rows = [row(0.5, eps=0.2), row(0.8, eps=0.1), row(0.1, eps=0.4)]
    other = row(0.3, eps=0.3, options={"use": "fgsm"})
    (series,) = find_series(result(*rows, other), "eps")
    # The clean accuracy is the value at 0.
    assert series.x == (0.0, 0.1, 0.2, 0.4)
    assert series.accuracy == (0.9, 0.8, 0.5, 0.1)
    assert series.label == "pgd, steps 10, restarts 1 (suite)"
    assert series.threat == "linf"
    assert series.ends[1] == wilson_interval(8, 10)
    assert find_series(result(*rows[:2]), "eps") == []


@pytest.mark.parametrize("axis", ["steps", "restarts"])
def test_rows_that_differ_in_an_option_alone_are_a_series(axis: Any) -> None:
    rows = [row(1 / n, options={"use": "pgd", "steps": 5, "restarts": 2, axis: n}) for n in (4, 1, 2)]
    apart = row(0.0, options={"use": "pgd", "steps": 5, "restarts": 2, axis: 8, "start": "zero"})
    (series,) = find_series(result(*rows, apart), axis)
    assert series.x == (1, 2, 4)
    assert series.accuracy == (1, 0.5, 0.25)
    assert "ε 0.1" in series.label


def test_rows_that_did_not_run_on_all_samples_do_not_count() -> None:
    rows = [row(0.5, eps=eps) for eps in (0.1, 0.2)]
    for excluded in (
        row(0.0, eps=0.3, skipped="no gradient"),
        row(0.0, eps=0.3, shift={"use": "rotate"}),
        row(0.0, eps=0.3, name="pgd from other"),
    ):
        assert find_series(result(*rows, excluded), "eps") == []
    # The first row of a chain ran on all; those after it on what it left.
    chain = [row(0.5, eps=eps, chain="c") for eps in (0.1, 0.2, 0.3)]
    assert find_series(result(*chain), "eps") == []
    assert find_series(result(*rows, *(row(0.4, eps=e, chain="c") for e in (0.3, 0.4))), "eps")[0].x == (
        0,
        0.1,
        0.2,
        0.3,
    )
