"""Whatever a recipe, a suite or a study contains: it is parsed, or its problems are listed."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, read_suite, recipe_from_mapping
from robustplug.recipe.options import Recipe
from robustplug.recipe.study import Study, read_study
from robustplug.recipe.suite import Suite
from robustplug.recipe.toml.files import bundled_recipes, bundled_suites
from robustplug.recipe.write import recipe_hash, write_recipe

from ..fuzz import fuzz, how_many, mutated, mutated_text

THREAT = {"use": "linf", "eps": 0.1}
# The bundled studies have so many cells, each of them a recipe, that reading one takes seconds.
STUDY = """schema = 1
name = "small"
base = "erm"
seeds = [0, 1]
suite = "quick"
audit = true

[set]
train.select = "robust"
evaluate.vicinity = { use = "linf", eps = 0.1 }

[[axis]]
key = "optimizer.lr"
values = [0.1, 0.01]
labels = ["fast", "slow"]

[[axis]]
name = "method"

[[axis.case]]
label = "GA"
set = { method = { use = "erm", vicinity = { use = "gaussian", sigma = 0.1 } } }
"""
TEXTS = {
    "recipe": [path.read_text() for _, path in sorted(bundled_recipes().items())],
    "suite": [path.read_text() for _, path in sorted(bundled_suites().items())],
    "study": [STUDY],
}


def suite(source: Any) -> Suite:
    return read_suite(source, THREAT)


READERS: dict[str, Callable[[Any], Recipe | Suite | Study]] = {
    "recipe": lambda source: recipe_from_mapping(source) if isinstance(source, dict) else read_recipe(source),
    "suite": suite,
    "study": read_study,
}


def read(kind: str, source: Any) -> None:
    """Read it; problems come as RecipeError only, and a recipe that is written is the one that was read."""
    try:
        found = READERS[kind](source)
    except RecipeError:
        return
    if isinstance(found, Recipe):
        again = recipe_from_mapping(tomllib.loads(write_recipe(found)))
        assert recipe_hash(again) == recipe_hash(found)


@how_many
@pytest.mark.parametrize("kind", list(READERS))
def test_a_file_of_any_content(kind: str, examples: int, tmp_path: Path) -> None:
    path = tmp_path / "mutated.toml"

    def body(data: bytes) -> None:
        path.write_bytes(data)
        read(kind, path)

    fuzz(mutated_text(st.sampled_from(TEXTS[kind])), examples, body)


@how_many
@pytest.mark.parametrize("kind", list(READERS))
def test_tables_of_any_content(kind: str, examples: int) -> None:
    tables = [tomllib.loads(text) for text in TEXTS[kind]]
    fuzz(mutated(st.sampled_from(tables)), examples, lambda tree: read(kind, tree))


@how_many
def test_overrides_of_any_content(examples: int) -> None:
    keys = st.sampled_from(
        ["train.epochs", "method", "evaluate.attack.0.steps", "task.use", "", ".", "model"]
    )
    values = st.text(max_size=30) | st.sampled_from(["1e999", "[[[", "{use=", '"', "auto", "-1"])
    override = st.builds("{}={}".format, keys | st.text(max_size=20), values) | st.text(max_size=20)

    def body(given: list[str]) -> None:
        with contextlib.suppress(RecipeError):
            read_recipe("cat", given)

    fuzz(st.lists(override, max_size=3), examples, body)
