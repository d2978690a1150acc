"""An option that is the folder of a run is looked for when the recipe is read, wherever it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from robustplug.api import Component, RecipeError, RunFolder, Use
from robustplug.plugin.component import run_folders
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.study import read_study
from robustplug.recipe.toml.started import starting_from, starts_of
from robustplug.studies.outcome import runs_of

from ..cli.conftest import run_cli
from ..training.runs import offered

MIX = """schema = 1
name = "mixed"
[task]
use = "mix"
share = 0.5
base = { use = "digits" }
extra = { use = "digits", split_seed = 1 }
teacher = "runs/nowhere"
[method]
use = "erm"
"""


@dataclass(frozen=True)
class Asking:
    """Ask a run."""

    first: RunFolder
    second: RunFolder | None = None
    third: Annotated[str, "no run"] = ""
    inner: Annotated[Use | None, "loss"] = None
    others: tuple[RunFolder, ...] = ()


def test_the_options_that_are_run_folders_are_known() -> None:
    assert run_folders(Asking) == ("first", "second", "others")


def test_a_missing_teacher_of_extra_data_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MIX)
    for command in ("validate", "train"):
        path = tmp_path / "mine.toml"
        result = run_cli("validate", path) if command == "validate" else run_cli("train", "--recipe", path)
        assert result.exit_code == 2
        assert "mine.toml:8: task.teacher" in result.output
        assert "runs/nowhere is not the folder of a finished run" in result.output
        assert "Traceback" not in result.output
    # Once trained, a run does not need it.
    assert read_recipe(tmp_path / "mine.toml", starts=False).task.options.teacher == "runs/nowhere"


def test_several_of_a_wrapper_are_found_before_training() -> None:
    table: dict[str, Any] = {"task": {"use": "digits"}, "method": {"use": "erm"}}
    table["evaluate"] = {"wrapper": {"use": "ensemble", "runs": ["runs/nowhere", "runs/none"]}}
    with pytest.raises(RecipeError) as error:
        recipe_from_mapping(table)
    keys = [problem.key for problem in error.value.problems]
    assert keys == ["evaluate.wrapper.runs.0", "evaluate.wrapper.runs.1"]
    recipe = recipe_from_mapping(table, starts=False)
    moved = starting_from(recipe, {"runs/none": "c"}).evaluate.wrapper
    assert moved is not None
    assert moved.options.runs == ("runs/nowhere", "c")


def test_one_of_the_wrapper_of_the_evaluation_is_found_before_training() -> None:
    around = {"use": "denoised", "run": "runs/nowhere"}
    table: dict[str, Any] = {"task": {"use": "digits"}, "method": {"use": "erm"}}
    table["evaluate"] = {"wrapper": around}
    with pytest.raises(RecipeError, match="runs/nowhere is not the folder of a finished run") as error:
        recipe_from_mapping(table)
    assert [problem.key for problem in error.value.problems] == ["evaluate.wrapper.run"]
    recipe = recipe_from_mapping(table, starts=False)
    moved = dict(starts_of(starting_from(recipe, {"runs/nowhere": "c"})))
    assert moved == {("evaluate", "wrapper", "run"): "c"}
    del around["run"]
    with pytest.raises(RecipeError, match="run"):
        recipe_from_mapping(table)


def test_one_in_a_slot_within_a_slot_is_found(tmp_path: Path) -> None:
    with offered("loss", Component("asking", lambda options, inner: None, Asking)):
        inner = {"use": "asking", "first": "a", "second": "b"}
        table: dict[str, Any] = {
            "task": {"use": "digits"},
            "method": {"use": "erm", "loss": {"use": "asking", "first": str(tmp_path), "inner": inner}},
        }
        with pytest.raises(RecipeError) as error:
            recipe_from_mapping(table)
        assert [problem.key for problem in error.value.problems] == [
            "method.loss.first",
            "method.loss.inner.first",
            "method.loss.inner.second",
        ]
        recipe = recipe_from_mapping(table, starts=False)
        moved = dict(starts_of(starting_from(recipe, {"b": "c"})))
        assert moved[("method", "loss", "inner", "second")] == "c"
        assert moved[("method", "loss", "inner", "first")] == "a"


def test_the_teacher_of_extra_data_may_be_a_cell_of_a_study(tmp_path: Path) -> None:
    mixed = {"use": "mix", "base": {"use": "digits"}, "extra": {"use": "digits", "split_seed": 1}}
    tables: dict[str, Any] = {
        "base": "erm",
        "seeds": [4],
        "axis": [
            {
                "name": "data",
                "case": [
                    {"label": "extra", "set": {"task": {**mixed, "teacher": "cell:data=real"}}},
                    {"label": "real", "set": {}},
                ],
            }
        ],
    }
    study = read_study(tables)
    first, second = runs_of(study, tmp_path)
    assert first.cell.name == "data=real"
    assert second.recipe.task.options.teacher == str(first.folder)
    cases = tables["axis"][0]["case"]
    cases[0]["set"]["task"]["teacher"] = "cell:data=reel"
    with pytest.raises(RecipeError, match='"data=reel" is no cell of this study'):
        read_study(tables)
