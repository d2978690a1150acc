"""`variant = "…"`: a name for a table of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from robustplug.plugin.component import Component
from robustplug.plugin.options import Count
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.schema import recipe_schema
from robustplug.recipe.write import recipe_to_mapping


def method_of(method: dict[str, Any]) -> dict[str, Any]:
    recipe = recipe_from_mapping({"task": {"use": "digits"}, "method": method})
    found: dict[str, Any] = recipe_to_mapping(recipe)["method"]
    return found


def test_a_variant_stands_for_its_options() -> None:
    plain, official = method_of({"use": "sprout"}), method_of({"use": "sprout", "variant": "official"})
    assert (plain["updates"], official["updates"]) == (1, 3)
    assert official["label_map"]["alpha"] == pytest.approx(1 / 11)
    assert "variant" not in official
    assert method_of(official) == official
    assert method_of({"use": "sprout", "variant": "paper"}) == plain


def test_the_recipe_comes_over_the_variant() -> None:
    own = {"use": "sprout", "variant": "official", "updates": 2, "label_map": {"scale": 5}}
    for label_map in ({"scale": 5}, {"use": "dirichlet", "scale": 5}):
        found = method_of({**own, "label_map": label_map})
        assert found["updates"] == 2
        assert (found["label_map"]["scale"], found["label_map"]["draw"]) == (5.0, "partner")
    assert method_of({**own, "label_map": {"use": "smooth"}})["label_map"] == {"use": "smooth", "alpha": 0.1}


BASE = {"use": "sprout", "updates": 5, "label_map": {"use": "dirichlet", "alpha": 0.2, "beta_lr": 0.3}}


def changed(method: dict[str, Any], *overrides: str) -> dict[str, Any]:
    recipe = recipe_from_mapping({"task": {"use": "digits"}, "method": method}, overrides)
    found: dict[str, Any] = recipe_to_mapping(recipe)["method"]
    return found


def test_a_variant_that_comes_later_goes_on_top_and_under_what_comes_after_it() -> None:
    plain = changed(BASE, "method.variant=official")
    assert (plain["updates"], plain["label_map"]["scale"]) == (3, 11.0)
    assert plain["label_map"]["alpha"] == pytest.approx(1 / 11)
    assert plain["label_map"]["beta_lr"] == 0.3
    later = changed(BASE, "method.variant=official", "method.updates=4", "method.label_map.alpha=0.5")
    assert (later["updates"], later["label_map"]["alpha"], later["label_map"]["scale"]) == (4, 0.5, 11.0)
    before = changed(BASE, "method.updates=4", "method.variant=official")
    assert before["updates"] == 3


def test_a_resolved_recipe_takes_a_variant_too() -> None:
    resolved = method_of({"use": "sprout"})
    official = changed(resolved, "method.variant=official")
    assert official["updates"] == 3
    assert official["label_map"] == method_of({"use": "sprout", "variant": "official"})["label_map"]


def test_an_option_of_that_name_is_no_variant() -> None:
    found = changed({"use": "cat", "eta": 0.02}, "method.variant=official-v1")
    assert (found["variant"], found["eta"]) == ("official-v1", 0.02)


@pytest.mark.parametrize(("variant", "text"), [("oficial", 'did you mean "official"?'), (3, "not 3")])
def test_an_unknown_variant_is_refused(variant: Any, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        method_of({"use": "sprout", "variant": variant})
    (problem,) = caught.value.problems
    assert problem.key == "method.variant"
    assert text in f"{problem.message} {problem.hint}"


def test_components_without_variants_know_no_such_key() -> None:
    with pytest.raises(RecipeError, match="no such option"):
        method_of({"use": "erm", "variant": "paper"})


def test_editors_hear_of_variants() -> None:
    definition = recipe_schema()["$defs"]["method.sprout"]
    assert definition["properties"]["variant"] == {"enum": ["paper", "official"]}


@dataclass(frozen=True)
class Taken:
    variant: Literal["a"] = "a"
    steps: Count = 1


def test_an_option_of_that_name_clashes_with_variants() -> None:
    with pytest.raises(ValueError, match="rename the option"):
        Component("taken", "m:M", Taken, variants={"fast": {"steps": 2}})
