"""State dicts from anywhere: prefixes, checkpoints, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from robustplug.core.types import TaskInfo
from robustplug.errors import RunError
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.subjects.loading import load_target

from .models import BARE, INFO, SMALL, bare, close, small


def stored(path: Path, value: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)
    return path


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
def test_prefixes_are_stripped_where_that_makes_all_names_fit(
    prefix: str, suffix: str, tmp_path: Path
) -> None:
    path = stored(tmp_path / f"model{suffix}", prefixed(prefix, small().state_dict()))
    target = load_target(path, INFO, model=SMALL)
    close(target.module, small())
    assert target.description.get("prefix", "") == prefix


def test_a_resolved_reference_will_do(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.pth", bare().state_dict())
    close(load_target(path, INFO, model=resolve(BARE, "model")).module, bare())


def test_a_name_beside_a_wrapper_is_told_and_a_name_within_is_refused(tmp_path: Path) -> None:
    state = prefixed("module.", small().state_dict())
    beside = stored(tmp_path / "beside.pth", {**state, "criterion.weight": torch.zeros(10)})
    target = load_target(beside, INFO, model=SMALL)
    close(target.module, small())
    assert "not used of the file: criterion.weight" in target.description["notes"]
    state = prefixed("module.", bare().state_dict())
    within = stored(tmp_path / "within.pth", {**state, "module.other": torch.zeros(1)})
    with pytest.raises(RunError) as caught:
        load_target(within, INFO, model=BARE)
    assert '(without "module." in front of the names of the file)' in str(caught.value)
    assert "1 unexpected: other (1,)" in str(caught.value)
    assert "missing" not in str(caught.value)
    assert "--set model.OPTION=VALUE" in str(caught.value)


def test_shapes_missing_and_unexpected_names_are_told_at_once(tmp_path: Path) -> None:
    state = dict(small().state_dict())
    state["network.19.weight"] = torch.zeros(7, 16)
    state["network.20.weight"] = torch.zeros(1)
    del state["network.1.bias"]
    with pytest.raises(RunError) as caught:
        load_target(stored(tmp_path / "model.safetensors", state), INFO, model=SMALL)
    assert "1 missing: network.1.bias" in str(caught.value)
    assert "1 unexpected: network.20.weight" in str(caught.value)
    assert "network.19.weight ((7, 16) in the file, (10, 16) in the model)" in str(caught.value)
    assert "model.safetensors does not fit" in str(caught.value)
    assert 'model "small-cnn"' in str(caught.value)


def test_another_width_is_told_by_shapes_only(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.pth", prefixed("module.", small().state_dict()))
    with pytest.raises(RunError, match="of another shape") as caught:
        load_target(path, INFO, model=Use("small-cnn", {"width": 8, "hidden": 16}))
    assert "missing" not in str(caught.value)


def test_a_file_without_the_models_normalisation_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.safetensors", bare().state_dict())
    with pytest.raises(
        RunError, match=r"no normalisation(.|\n)*model\.normalize=false, and --mean and --std"
    ):
        load_target(path, INFO, model=SMALL)
    stated = Use("small-cnn", {"width": 4, "hidden": 16, "mean": [0.25], "std": [0.5]})
    target = load_target(path, INFO, model=stated)
    assert target.description["normalisation"] == {"mean": [0.25], "std": [0.5], "where": "inside the model"}


def test_the_normalisation_of_a_file_is_kept_in_front_of_a_model_without_one(tmp_path: Path) -> None:
    target = load_target(stored(tmp_path / "model.safetensors", small().state_dict()), INFO, model=BARE)
    close(target.module, small())
    assert target.description["normalisation"]["where"] == "in front"


def test_old_files_without_the_counter_of_batchnorm(tmp_path: Path) -> None:
    state = {k: v for k, v in small().state_dict().items() if not k.endswith("num_batches_tracked")}
    close(load_target(stored(tmp_path / "a.pth", state), INFO, model=SMALL).module, small())


def test_half_precision_weights_are_computed_with_in_float32(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in small().state_dict().items()}
    target = load_target(stored(tmp_path / "a.safetensors", state), INFO, model=SMALL)
    assert {p.dtype for p in target.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("place", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoints_of_other_programs(place: str, tmp_path: Path) -> None:
    average = {name: value + 1 for name, value in small().state_dict().items()}
    state = prefixed("module.", small().state_dict())
    checkpoint = {"epoch": 3, "ema": average, place: state, "optimizer": {"lr": 0.1}}
    target = load_target(stored(tmp_path / "a.pth", checkpoint), INFO, model=SMALL)
    close(target.module, small())
    place_note, prefix_note = target.description["notes"]
    assert f'under "{place}"' in place_note
    assert "not used: ema" in place_note
    assert '"module."' in prefix_note


@pytest.mark.parametrize(
    ("value", "message"),
    [({"epoch": 3}, r"no state dict \(keys: epoch\)"), ([1, 2], "contains a list"), ({}, "keys: none")],
)
def test_other_pickles_hold_no_state_dict(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        load_target(stored(tmp_path / "a.pth", value), INFO, model=SMALL)


def test_a_component_is_needed(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.safetensors", small().state_dict())
    with pytest.raises(RunError, match=r"--model .*installed: .*small-cnn") as caught:
        load_target(path, INFO)
    assert "robustplug evaluate" not in str(caught.value)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(RunError, match=f"robustplug evaluate {tmp_path}"):
        load_target(path, INFO)


def test_a_component_that_does_not_exist_is_a_recipe_error(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.safetensors", small().state_dict())
    for wrong in (Use("small-cn"), Use("small-cnn", {"widht": 4}), Use("vgg16")):
        with pytest.raises(RecipeError):
            load_target(path, INFO, model=wrong)


def test_another_number_of_classes(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.safetensors", small().state_dict())
    info = TaskInfo({}, shape=(1, 8, 8), classes=7, mean=INFO.mean, std=INFO.std)
    with pytest.raises(RunError, match=r"\(10, 16\) in the file, \(7, 16\) in the model"):
        load_target(path, info, model=SMALL)
