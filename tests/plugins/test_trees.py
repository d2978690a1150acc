"""Boosted trees as a model component."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import robustplug
from robustplug.api import Feed, TaskInfo, stream
from robustplug.recipe.errors import RecipeError
from robustplug_trees import booster
from robustplug_trees.booster import BoostedTrees, weighted_labels

lightgbm: Any = pytest.importorskip("lightgbm")
TASK = robustplug.build("task", "digits")


def trees(**options: Any) -> BoostedTrees:
    model = robustplug.build("model", "lightgbm", info=TASK.info, **{"trees": 3, "leaves": 8, **options})
    assert isinstance(model, BoostedTrees)
    return model


def digits(rows: int = 300) -> tuple[Tensor, Tensor]:
    (batch,) = TASK.batches("train", Feed(batch_size=rows, samples=rows))
    return batch.x, batch.y


def test_a_fitted_model_is_the_librarys_own() -> None:
    model, (x, y) = trees(trees=5, leaves=6, learning_rate=0.3), digits()
    model.fit(x, y, 7)
    settings = {
        "objective": "multiclass",
        "num_class": 10,
        "num_leaves": 6,
        "learning_rate": 0.3,
        "seed": 7,
        "verbosity": -1,
    }
    own = lightgbm.train(settings, lightgbm.Dataset(x.flatten(1).numpy(), y.numpy()), 5)
    expected = own.predict(x.flatten(1).numpy(), raw_score=True)
    np.testing.assert_allclose(model(x).numpy(), expected, rtol=1e-5)
    assert own.num_trees() == 50


def test_nothing_is_known_before_fit() -> None:
    assert torch.equal(trees()(torch.rand(2, 1, 8, 8, generator=stream(0))), torch.zeros(2, 10))
    assert len(trees().state_dict()["_extra_state"]) == 0


def test_neither_threads_nor_seeds_of_any_size_change_the_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    # As many threads as torch, however small the data.
    monkeypatch.setattr(booster, "_VALUES", 0)
    monkeypatch.setattr(booster, "_WALKS", 0)
    before = torch.get_num_threads()
    first, second = trees(trees=1), trees(trees=1)
    try:
        for model, threads, seed in ((first, 1, 0), (second, 2, 2**62)):
            torch.set_num_threads(threads)
            model.fit(*digits(60), seed)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first(digits()[0]), second(digits()[0]))


def test_rows_of_shares_are_weights() -> None:
    y = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    sample, label, weight = weighted_labels(y)
    assert weight is not None
    assert (sample.tolist(), label.tolist(), weight.tolist()) == ([0, 1, 1], [1, 0, 2], [1.0, 0.25, 0.75])
    x, numbers = digits()
    one, other = trees(), trees()
    one.fit(x, numbers, 0)
    other.fit(x, torch.nn.functional.one_hot(numbers, 10).float(), 0)
    torch.testing.assert_close(one(x), other(x))


def test_the_state_dict_holds_the_trees(tmp_path: Path) -> None:
    model, (x, y) = trees(), digits()
    model.fit(x, y, 0)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    again = trees()
    again.load_state_dict(state)
    assert torch.equal(again(x), model(x))
    assert torch.equal(again.state_dict()["_extra_state"], state["_extra_state"])
    # What LightGBM reads by itself.
    text = tmp_path / "m.txt"
    text.write_bytes(state["_extra_state"].numpy().tobytes())
    result = robustplug.evaluate(text, task="digits", attacks=[], samples=50)
    assert result.attacks[0].accuracy > 0.5
    again.load_state_dict(trees().state_dict())
    assert not again(x).any()


def test_trees_of_other_tasks_do_not_load() -> None:
    model = trees()
    model.fit(*digits(), 0)
    info = TaskInfo(sizes={}, shape=(1, 8, 8), classes=3)
    other = robustplug.build("model", "lightgbm", info=info)
    with pytest.raises(RuntimeError, match="64 features and 10 classes, not for 64 and 3"):
        other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="cannot be read"):
        other.load_state_dict({"_extra_state": torch.ones(9, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="number of classes"):
        robustplug.build("model", "lightgbm", info=TaskInfo(sizes={}, shape=(1, 8, 8)))


def test_lightgbm_must_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(RecipeError, match=r'pip install "robustplug\[trees\]"'):
        robustplug.train("gbdt-digits", out=tmp_path / "run")


def test_the_recipe_breaks_what_it_trains(tmp_path: Path) -> None:
    few = [f"evaluate.attack.{number}.{key}" for number in range(3) for key in ("queries=300", "starts=20")]
    few += [f"evaluate.attack.{number}.directions=10" for number in range(3)]
    trained = robustplug.train(
        "gbdt-digits", overrides=["model.trees=10", "evaluate.samples=8", *few], out=tmp_path / "run"
    )
    clean, *attacks = trained.result.attacks
    assert clean.accuracy > 0.7
    assert [row.skipped for row in attacks] == ["", "", ""]
    assert attacks[-1].accuracy < clean.accuracy
    again = robustplug.evaluate(tmp_path / "run")
    assert [row.right for row in again.attacks] == [row.right for row in trained.result.attacks]
    source = robustplug.evaluate(
        tmp_path / "run",
        suite={"name": "t", "row": [{"attack": {"use": "noise"}, "transfer": True}]},
        sources=[tmp_path / "run"],
    )
    assert source.attacks[1].skipped == ""
