"""Recipes, suites, studies and options that cost time or memory, or hold what no file can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping

from .hostile import in_time, refused

pytestmark = pytest.mark.table

HEAD = 'schema = 1\nname = "x"\n[task]\nuse = "digits"\n[method]\nuse = "erm"\n'

FILES: dict[str, tuple[str, str]] = {
    "deep arrays": ("a = " + "[" * 50_000 + "]" * 50_000, "nested too deeply"),
    "100 arrays": (f"{HEAD}[train]\na = {'[' * 100}{']' * 100}", "nested too deeply"),
    "deep tables": ("a = " + "{a = " * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
    "a key of many parts": (".".join("a" * 100_000) + " = 1", "a key of more than 64 parts"),
    "quoted parts": (".".join(['"a"'] * 50_000) + " = 1", "a key of more than 64 parts"),
    "a header of many parts": (f"{HEAD}[{'.'.join('a' * 50_000)}]", "a key of more than 64 parts"),
    "large": ("#" * 2**20 + "\n", "is too large"),
    "endless string": (f'{HEAD}[train]\nfoo = "{"x" * 900_000}"\n', "no such key"),
    "an array of many lines": (HEAD + "[train]\nfoo = [\n" + "1,\n" * 20_000 + "]\n", "no such key"),
    "many keys": (
        HEAD + "[train]\n" + "".join(f"k{i} = 1\n" for i in range(2_000)),
        "and 1900 more problems",
    ),
    "a long number": (f"{HEAD}[train]\nepochs = {'9' * 10_000}\n", "is not TOML"),
    "NUL": (HEAD.replace('"digits"', '"digits"\nroot = "a\\u0000b"'), "no text in UTF-8"),
    "NUL in a key": (f'{HEAD}[train]\n"a\\u0000" = 1\n', "no text in UTF-8"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_recipe_is_refused(case: str, tmp_path: Path) -> None:
    text, why = FILES[case]
    (tmp_path / "a.toml").write_text(text)
    with in_time(), pytest.raises(RecipeError, match=why) as caught:
        read_recipe(tmp_path / "a.toml")
    message = str(caught.value)
    assert len(message) < 50_000
    assert len(max(message.splitlines(), key=len)) < 2_000


@pytest.mark.parametrize("kind", [("validate", "--suite"), ("study", "--list")])
@pytest.mark.parametrize("case", ["deep arrays", "a key of many parts", "large"])
def test_a_hostile_suite_or_study_is_refused(kind: tuple[str, ...], case: str, tmp_path: Path) -> None:
    text, why = FILES[case]
    (tmp_path / "a.toml").write_text(text)
    assert why in refused(*kind, tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("override", "why"),
    [
        (f"{'.'.join('a' * 30_000)}=1", "is not a key"),
        ("train.epochs=" + "[" * 60_000, "train.epochs"),
        ("train.epochs=" + "[" * 200 + "]" * 200, "nested too deeply"),
        (f"train.epochs={{{'.'.join('a' * 30_000)} = 1}}", "train.epochs"),
        ("task.root=\udcff", "no text in UTF-8"),
        ("name=\udcff", "no text in UTF-8"),
        ("", "key=value"),
        ("=", "key=value"),
        ("=1", "is not a key"),
        ("a\nb=1", "is not a key"),
        ("train.epochs=\x1b[31m", "train.epochs"),
    ],
)
def test_a_hostile_override_is_refused(override: str, why: str) -> None:
    assert why in refused("validate", "cat", "--set", override)


def _self() -> dict[str, Any]:
    tables: dict[str, Any] = {"name": "x"}
    tables["task"] = tables
    return tables


def _deep() -> dict[str, Any]:
    tables: dict[str, Any] = {"name": "x"}
    for _ in range(100_000):
        tables = {"task": tables}
    return tables


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        (_self(), "nested too deeply"),
        (_deep(), "nested too deeply"),
        ({"task": {"use": "digits", "classes": range(10)}, "x": [0] * 200_000}, "more than 100000 entries"),
        ({"name": "\ud800", "task": {"use": "digits"}}, "no text in UTF-8"),
        ({"name": "a", "task": {"use": "mnist", "root": "\0"}}, "no text in UTF-8"),
    ],
    ids=["itself", "deep", "many", "surrogate", "NUL"],
)
def test_a_hostile_mapping_is_refused(tables: dict[str, Any], why: str) -> None:
    with in_time(), pytest.raises(RecipeError, match=why):
        recipe_from_mapping(tables)
    with in_time(), pytest.raises(RecipeError, match=why):
        robustplug.train(tables)
