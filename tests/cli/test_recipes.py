"""recipes and validate."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from robustplug.recipe.toml.files import bundled_recipes

from .conftest import Invoke, run_cli


def test_recipes_are_listed_with_their_first_line(cli: Invoke) -> None:
    result = cli("recipes", "list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == list(bundled_recipes())
    (cat,) = [line for line in lines if line.split()[0] == "cat"]
    assert "CAT" in cat
    assert "#" not in cat


def test_a_recipe_is_copied_here_and_never_over_a_file(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("recipes", "copy", "cat")
    assert result.exit_code == 0
    assert "robustplug train --recipe cat.toml" in result.output
    assert Path("cat.toml").read_bytes() == bundled_recipes()["cat"].read_bytes()
    Path("cat.toml").write_text("mine")
    result = cli("recipes", "copy", "cat")
    assert result.exit_code == 2
    assert "exists" in result.output
    assert Path("cat.toml").read_text() == "mine"


def test_a_copy_goes_where_it_is_told(cli: Invoke, tmp_path: Path) -> None:
    assert cli("recipes", "copy", "cat", tmp_path / "mine.toml").exit_code == 0
    assert cli("recipes", "copy", "cat", tmp_path).exit_code == 0
    assert (tmp_path / "mine.toml").read_bytes() == (tmp_path / "cat.toml").read_bytes()
    assert cli("validate", tmp_path / "mine.toml").exit_code == 0
    assert cli("recipes", "copy", "cat", tmp_path).exit_code == 2


def test_a_copy_that_cannot_be_written_is_one_message(cli: Invoke, tmp_path: Path) -> None:
    result = cli("recipes", "copy", "cat", tmp_path / "absent" / "mine.toml")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_a_copy_of_an_unknown_recipe_gives_the_closest(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("recipes", "copy", "catt")
    assert result.exit_code == 2
    assert 'did you mean "cat"?' in result.output
    assert not list(tmp_path.iterdir())


TABLES = {name: tomllib.loads(path.read_text()) for name, path in bundled_recipes().items()}
"""The recipes by name."""

STARTING = {
    name: (f"{place}.from", start)
    for name, table in TABLES.items()
    for place, part in {
        "model": table.get("model"),
        **{f"method.{key}": value for key, value in table.get("method", {}).items()},
    }.items()
    if isinstance(part, dict) and (start := part.get("from"))
}
"""Where a recipe states initial weights, and the run that they are from."""


@pytest.mark.parametrize("name", sorted(bundled_recipes().keys() - STARTING.keys()))
def test_every_bundled_recipe_is_valid(cli: Invoke, name: str) -> None:
    result = cli("validate", name)
    assert result.exit_code == 0, result.output
    assert f"{name} is valid" in result.output


@pytest.mark.parametrize("name", STARTING)
def test_a_bundled_recipe_that_starts_from_a_run_lacks_nothing_else(
    cli: Invoke, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("validate", name)
    assert result.exit_code == 2
    heads = [line for line in result.output.splitlines() if not line.startswith(" ")]
    assert len(heads) == 1
    place, start = STARTING[name]
    assert heads[0].endswith(f": {place}")
    first = bundled_recipes()[name].read_text().splitlines()[1]
    (other,) = (other for other, table in TABLES.items() if table["name"] == Path(start).name)
    assert f"--recipe {other}" in first or f"then {other}" in first


BAD = """\
schema = 1
sed = 3
[task]
use = "digit"
[method]
use = "cat"
etta = 0.1
eta = -1
[method.perturbation]
use = "pgd"
steps = "ten"
[train]
epochs = 0
[[evaluate.attack]]
use = "pgd"
steps = 50
[[evaluate.attack]]
use = "pdg"
"""


def test_all_problems_are_told_at_once_with_their_lines(cli: Invoke, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text(BAD)
    result = cli("validate", recipe)
    assert result.exit_code == 2
    heads = [line for line in result.output.splitlines() if not line.startswith(" ")]
    places = [(2, "sed"), (4, "task.use"), (7, "method.etta"), (8, "method.eta")]
    places += [(11, "method.perturbation.steps"), (13, "train.epochs"), (18, "evaluate.attack.1.use")]
    assert heads == [f"{recipe}:{line}: {key}" for line, key in places]
    for meant in ("seed", "digits", "eta", "pgd"):
        assert f'"{meant}"' in result.output
    assert result.output.lower().count("did you mean") >= 4


def test_overrides_are_checked_and_named(cli: Invoke) -> None:
    assert cli("validate", "cat", "--set", "method.eta=1/100", "--set", "train.epochs=5").exit_code == 0
    result = cli("validate", "cat", "--set", "train.epochs=0", "--set", "method.etta=1", "--set", "nonsense")
    assert result.exit_code == 2
    for text in ("--set train.epochs=0: train.epochs", "--set method.etta=1: method.etta", "--set nonsense"):
        assert text in result.output


def test_the_resolved_recipe_is_a_recipe(cli: Invoke, tmp_path: Path) -> None:
    result = cli("validate", "cat", "--set", "seed=7", "--resolved")
    assert result.exit_code == 0
    table = tomllib.loads(result.output)
    assert table["seed"] == 7
    # What the file leaves out is there, of the recipe and of every component.
    assert table["train"]["select"] == "robust"
    assert table["method"]["adaptive"] is True
    assert table["method"]["loss"] == {"use": "cat", "kappa": 10.0, "margin_weight": "one"}
    assert table["method"]["perturbation"]["start"] == "zero"
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(result.output)
    assert cli("validate", resolved, "--resolved").output == result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Give a recipe"),
        (["no-such-recipe"], "no bundled recipe"),
        (["cat", "--sett", "a=1"], "No such option"),
    ],
)
def test_wrong_usage_has_exit_code_2(cli: Invoke, arguments: list[str], why: str) -> None:
    result = cli("validate", *arguments)
    assert result.exit_code == 2
    assert why in result.output


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    result = run_cli("validate", "--schema")
    assert result.exit_code == 0
    schema = json.loads(result.output)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.table(15)
@pytest.mark.parametrize("name", bundled_recipes())
def test_the_schema_accepts_what_is_bundled(name: str, validator: Any) -> None:
    recipe = tomllib.loads(bundled_recipes()[name].read_text())
    assert [error.message for error in validator.iter_errors(recipe)] == []


def test_the_schema_finds_mistakes(validator: Any) -> None:
    assert len(list(validator.iter_errors(tomllib.loads(BAD)))) >= 4
