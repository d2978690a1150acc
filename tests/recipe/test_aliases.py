"""`threat` is another name of an evaluation's `vicinity`, in recipes, overrides and suites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, read_suite, recipe_from_mapping
from robustplug.recipe.schema import recipe_schema

BASE: dict[str, Any] = {"task": {"use": "digits"}, "method": {"use": "erm"}}
THREAT = {"use": "l2", "eps": 0.5}


def test_both_names_mean_the_same() -> None:
    ours = recipe_from_mapping({**BASE, "evaluate": {"vicinity": THREAT}})
    theirs = recipe_from_mapping({**BASE, "evaluate": {"threat": THREAT}})
    assert ours == theirs
    assert recipe_from_mapping({**BASE, "evaluate": {"threat": THREAT}}, ["evaluate.threat.eps=0.25"]) == (
        recipe_from_mapping({**BASE, "evaluate": {"vicinity": {"use": "l2", "eps": 0.25}}})
    )


def test_a_suite_takes_both() -> None:
    suites = [
        read_suite(
            {"name": "s", "row": [{"attack": {"use": "pgd"}, name: {"eps": 0.2}}]},
            {"use": "linf", "eps": 0.1},
        )
        for name in ("threat", "vicinity")
    ]
    assert suites[0] == suites[1]


def test_a_problem_is_told_at_the_name_that_was_written(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    text = '[task]\nuse = "digits"\n[method]\nuse = "erm"\n[evaluate.threat]\nuse = "linf"\nepss = 0.1\n'
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    assert "r.toml:7: evaluate.threat.epss" in str(caught.value)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.threat\n.*another name"):
        recipe_from_mapping({**BASE, "evaluate": {"threat": THREAT, "vicinity": THREAT}})
    with pytest.raises(RecipeError, match=r"row\.0\.threat"):
        read_suite({"name": "s", "row": [{"attack": "pgd", "threat": THREAT, "vicinity": THREAT}]}, THREAT)


def test_the_schema_lists_both() -> None:
    properties = recipe_schema()["properties"]["evaluate"]["properties"]
    assert properties["threat"] == properties["vicinity"]
