"""Ranges come from the options' own types, and whatever cannot be searched is said at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from robustplug.plugin.options import Count, Decay, NonNegative, Positive, UnitInterval
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe
from robustplug.studies.tuning.options import Tuning, read_tuning
from robustplug.studies.tuning.space import Choices, Numbers, OptionRange, options_of, range_of


@dataclass(frozen=True)
class Options:
    share: UnitInterval = 0.5
    decay: Decay = 0.9
    beta: Positive = 6.0
    weight: NonNegative | None = None
    steps: Count = 10
    clip: bool = False
    mode: Literal["eval", "train"] = "eval"
    name: str = "x"


def found(name: str, **written: Any) -> Any:
    return range_of(Options, name, OptionRange(key=f"method.{name}", **written))


def test_a_range_is_that_of_the_type() -> None:
    assert found("share") == Numbers(0, 1, whole=False, log=False)
    decay = found("decay")
    assert (decay.low, decay.high) == (0, pytest.approx(1))
    assert decay.high < 1
    assert found("clip") == Choices((False, True))
    assert found("mode") == Choices(("eval", "train"))


def test_what_is_written_narrows_it() -> None:
    assert found("share", low=0.1, high=0.2) == Numbers(0.1, 0.2, whole=False, log=False)
    assert found("steps", high=20) == Numbers(1, 20, whole=True, log=False)
    assert found("beta", low=0.1, high=10, log=True) == Numbers(0.1, 10, whole=False, log=True)
    assert found("steps", values=(1, 3)) == Choices((1, 3))
    assert found("weight", high=2.0) == Numbers(0, 2, whole=False, log=False)


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("beta", {}, "give high"),
        ("steps", {"low": 1}, "give high"),
        ("steps", {"high": 2.5}, "whole number"),
        ("share", {"high": 1.5}, "0 to 1.5 is not within the bounds of method.share, 0 to 1"),
        ("share", {"low": 0.5, "high": 0.5}, "is not below high"),
        ("share", {"log": True}, "above 0 for the logarithm"),
        ("mode", {"low": 1}, "is no number"),
        ("name", {}, "has no range: give values"),
        ("share", {"values": (0.1,), "low": 0.1}, "both values and a range"),
    ],
)
def test_what_cannot_be_searched_is_said(name: str, written: dict[str, Any], said: str) -> None:
    assert said in found(name, **written)


def test_a_number_is_no_boolean() -> None:
    assert not Numbers(0, 1, whole=True, log=False).holds(True)
    assert not Choices((1, 2)).holds(True)
    assert Numbers(0, 9, whole=True, log=False).holds(3)
    assert not Numbers(0, 9, whole=True, log=False).holds(2.5)


def test_without_options_those_of_the_method_with_a_range_are_searched() -> None:
    assert set(options_of(read_recipe("iaat"))) >= {"method.beta", "method.search", "method.mode"}
    assert "method.gamma" not in options_of(read_recipe("iaat"))
    assert options_of(read_recipe("trades")) == []


def tuning(**tables: Any) -> Tuning:
    return read_tuning({"base": "trades", "passes": 1000, "option": [BETA], **tables})


BETA = {"key": "method.beta", "low": 1, "high": 10}


def problems(tables: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        read_tuning(tables)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_all_problems_are_said_at_once() -> None:
    said = problems(
        {
            "base": "trades",
            "passes": 0,
            "minutes": 3,
            "finalists": 0,
            "option": [
                {"key": "method.betta", "low": 1, "high": 2},
                {"key": "method.beta"},
                {"key": "method.perturbation"},
                {"key": "evaluate.samples", "low": 1, "high": 3},
                {"key": "method.perturbation.steps", "values": [0, 3]},
                {"key": "method.perturbation.steps", "low": 1, "high": 3},
                {"key": "optimizer.lr", "low": 0.1, "hihg": 1},
            ],
        }
    )
    assert "passes" in said
    assert "finalists" in said
    assert "second budget" in said["minutes"]
    assert 'did you mean "beta"' in said["option.0.key"]
    assert "give high" in said["option.1"]
    assert "no single option but a table" in said["option.2.key"]
    assert "not be measured alike" in said["option.3.key"]
    assert "method.perturbation.steps = 0" in said["option.4"]
    assert "searched 2 times" in said["option"]
    assert any(key.startswith("option.6") for key in said)


def test_a_tuning_without_budget_base_or_ranges_is_refused() -> None:
    assert "there is no budget" in problems({"base": "trades", "option": [BETA]})[""]
    assert "base" in problems({"passes": 1, "option": [BETA]})
    assert "no option of" in problems({"base": "trades", "passes": 1})["option"]
    assert "base" in problems({"base": "tradess", "passes": 1})
    assert "set" in " ".join(
        problems({"base": "trades", "passes": 1, "set": {"method.betta": 1}, "option": [BETA]})
    )


def test_a_trial_has_the_recipe_of_its_values() -> None:
    found = tuning(set={"train.epochs": 3}, seed=4)
    recipe = found.with_values({"method.beta": 2.5}, "0001")
    assert (recipe.name, recipe.seed, recipe.train.epochs) == ("0001", 4, 3)
    assert recipe.method.options.beta == 2.5
    assert found.recipe.method.options.beta == 6
