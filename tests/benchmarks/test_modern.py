"""The studies of today's methods are those that their benchmark writes, at equal cost."""

from __future__ import annotations

import tomllib

import modern
import pytest


@pytest.mark.parametrize("name", modern.PLANS)
def test_a_study_is_what_is_written(name: str) -> None:
    text = (modern.STUDIES / f"{name}.toml").read_text(encoding="utf-8")
    assert modern.study_of(name, modern.PLANS[name]) == text


@pytest.mark.parametrize("name", [name for name, plan in modern.PLANS.items() if plan.budget])
def test_the_methods_cost_the_same(name: str) -> None:
    plan = modern.PLANS[name]
    study = tomllib.loads((modern.STUDIES / f"{name}.toml").read_text(encoding="utf-8"))
    for case in study["axis"][0]["case"]:
        each = modern.passes_of_epoch(case["label"], case["set"]["method"], plan)
        # Within half an epoch, as a training has whole ones.
        assert abs(case["set"]["train"]["epochs"] * each - plan.budget) <= each / 2


def test_the_hours_follow_from_passes_and_updates() -> None:
    found = modern.hours(modern.PLANS["modern-cifar10"])
    assert found["captured"] < found["not captured"]
