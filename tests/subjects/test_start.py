"""`[model] from = "…"`: training starts from weights that are there already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import robustplug
from robustplug.errors import Interrupted, RunError
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.training.train import Training

from ..training.runs import MODEL, outcome, read_json, tiny

ONE = {"train": {"epochs": 1}}


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return robustplug.train(tiny(**ONE), out=tmp_path_factory.mktemp("natural") / "run").folder


def still(start: Path | str, **model: Any) -> dict[str, Any]:
    """Return a recipe that hardly moves its weights."""
    return tiny(train={"epochs": 1}, model={**model, "from": str(start)}, optimizer={"lr": 1e-12})


def close(first: Path, second: Path) -> bool:
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    # Running statistics move with every batch.
    names = [name for name in one if name.endswith(("weight", "bias"))]
    return all(torch.allclose(one[name], two[name], atol=1e-6) for name in names)


@pytest.mark.parametrize("what", ["run", "file"])
def test_training_starts_from_a_run_or_a_file(natural: Path, tmp_path: Path, what: str) -> None:
    start = natural if what == "run" else natural / "model.safetensors"
    folder = robustplug.train(still(start), out=tmp_path / "run").folder
    assert close(folder, natural)
    assert len(read_json(folder / "environment.json")["started_from"]) == 64
    assert read_recipe(folder / "recipe.toml").model.start == str(start)  # type: ignore[union-attr]


def test_a_run_says_which_model_it_is(natural: Path, tmp_path: Path) -> None:
    recipe = still(natural)
    recipe["model"] = {"from": str(natural)}
    folder = robustplug.train(recipe, out=tmp_path / "run").folder
    assert close(folder, natural)
    model = read_recipe(folder / "recipe.toml").model
    assert model is not None
    assert (model.name, model.options.width) == ("small-cnn", MODEL["width"])


def test_a_finished_run_needs_its_start_no_more(natural: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(natural, start)
    folder = robustplug.train(still(start), out=tmp_path / "run").folder
    shutil.rmtree(start)
    assert robustplug.evaluate(folder).samples == 48


def test_a_killed_run_goes_on_as_if_it_had_not_been(natural: Path, tmp_path: Path) -> None:
    recipe = tiny("sprout", model={"from": str(natural)}, train={"checkpoint_batches": 1})
    whole = robustplug.train(recipe, out=tmp_path / "whole").folder
    killed = tmp_path / "killed"
    training = Training(recipe_from_mapping(recipe), killed)
    save = training._save

    def stop(session: Any) -> None:
        save(session)
        if session.loop.update == 3:
            raise Interrupted("stopped", 130)

    training._save = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        training.run()
    robustplug.train(resume=killed)
    assert outcome(whole) == outcome(killed)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("nowhere", "nor the folder of a finished run"),
        ("empty", "nor the folder of a finished run"),
        ("bad.bin", "no model that can be read"),
    ],
)
def test_what_cannot_be_started_from_is_said_and_no_folder_is_spoilt(
    tmp_path: Path, start: str, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.bin").write_bytes(b"\x10\0\0\0\0\0\0\0 nothing")
    with pytest.raises((RunError, RecipeError), match=text):
        robustplug.train(still(tmp_path / start), out=tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_weights_that_do_not_fit_are_refused_with_what_differs(natural: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not fit model \"small-cnn\"(.|\n)*of another shape"):
        robustplug.train(still(natural, width=6), out=tmp_path / "run")


def test_from_must_be_a_run_where_the_model_is_not_named(tmp_path: Path) -> None:
    recipe = tiny()
    for start, text in ((str(tmp_path), "is not a run folder"), (3, "names no model")):
        recipe["model"] = {"from": start}
        with pytest.raises(RecipeError, match=text):
            recipe_from_mapping(recipe)
