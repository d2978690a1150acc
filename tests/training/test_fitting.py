"""Models that learn by themselves go through the same training as all others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.types import TaskInfo
from robustplug.devices.processes import Processes
from robustplug.errors import RunError
from robustplug.plugin.component import Component
from robustplug.plugin.traits import self_trained
from robustplug.recipe.errors import RecipeError
from robustplug.training import train

from .runs import merged, offered, outcome, read_json, tiny
from .test_resume import Killed, kill_after_save

SAMPLES = 133


class NearestMean(nn.Module):
    """Score each class by how near its mean image is; it knows only classes that it has seen."""

    calls: list[tuple[Tensor, Tensor, int]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, info: TaskInfo) -> None:
        super().__init__()
        self.classes = info.classes or 0
        self.means = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.means):
            return torch.zeros(len(x), self.classes)
        return -torch.cdist(x.detach().flatten(1), self.means).square()

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        NearestMean.calls.append((x, y, seed))
        rows = y if y.dim() == 2 else nn.functional.one_hot(y, self.classes).float()
        self.means = rows.T @ x.flatten(1) / rows.sum(0)[:, None]

    def get_extra_state(self) -> Tensor:
        return self.means

    def set_extra_state(self, state: Tensor) -> None:
        self.means = state


def nearest_mean(options: Any, *, info: TaskInfo) -> nn.Module:
    return NearestMean(info)


@pytest.fixture(autouse=True)
def model() -> Iterator[None]:
    NearestMean.calls.clear()
    factory = f"{__name__}:nearest_mean"
    with offered(
        "model",
        Component("nearest-mean", factory, traits=self_trained()),
        Component("says-nothing", factory),
    ):
        yield


def by_itself(**tables: Any) -> dict[str, Any]:
    recipe = tiny(validate={"attack": {"use": "none"}}, evaluate={"attack": [{"use": "noise"}]})
    recipe["model"], recipe["optimizer"] = {"use": "nearest-mean"}, {"use": "sgd"}
    return merged(recipe, tables)


def test_an_epoch_fits_the_model_once_to_all_samples(tmp_path: Path) -> None:
    trained = robustplug.train(by_itself(), out=tmp_path / "run")
    (x, y, seed), (x2, y2, seed2) = NearestMean.calls
    assert (len(x), len(y), len(x2), len(y2)) == (SAMPLES,) * 4
    assert y.dtype == torch.int64
    assert not torch.equal(y, y2)
    assert torch.equal(y.sort().values, y2.sort().values)
    assert seed != seed2
    assert len(trained.history) == 2
    assert trained.history[-1].validation["clean"] > 0.7
    assert trained.history[-1].train["accuracy/clean"] > 0.8
    assert trained.result.attacks[0].accuracy > 0.7
    assert trained.result.meta["training"]["backwards_per_sample"] == 0
    assert trained.result.meta["normalisation"] == {}


def test_samples_and_labels_are_those_of_vicinity_and_label_map(tmp_path: Path) -> None:
    robustplug.train(by_itself(), out=tmp_path / "plain")
    noise = {"vicinity": {"use": "gaussian", "sigma": 0.1}, "label_map": {"use": "smooth", "alpha": 0.2}}
    robustplug.train(by_itself(method=noise), out=tmp_path / "noisy")
    plain, noisy = NearestMean.calls[0], NearestMean.calls[2]
    assert 0.05 < float((plain[0] - noisy[0]).square().mean().sqrt()) < 0.11
    assert noisy[1].shape == (SAMPLES, 10)
    assert torch.equal(noisy[1].argmax(1), plain[1])
    torch.testing.assert_close(noisy[1].sum(1), torch.ones(SAMPLES))
    mixed = {"vicinity": {"use": "mixup"}}
    robustplug.train(by_itself(method=mixed), out=tmp_path / "mixed")
    assert NearestMean.calls[4][1].shape == (SAMPLES, 10)


@pytest.mark.parametrize("kill", [1, 2])
def test_a_killed_run_goes_on_bit_for_bit(kill: int, tmp_path: Path) -> None:
    robustplug.train(by_itself(), out=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, kill)
        robustplug.train(by_itself(), out=tmp_path / "killed")
    robustplug.train(resume=tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_run_is_evaluated_and_started_from(tmp_path: Path) -> None:
    trained = robustplug.train(by_itself(), out=tmp_path / "run")
    again = robustplug.evaluate(tmp_path / "run")
    assert [row.right for row in again.attacks] == [row.right for row in trained.result.attacks]
    file = tmp_path / "run" / "model.safetensors"
    loaded = robustplug.evaluate(file, task="digits", architecture="nearest-mean", attacks=[])
    assert loaded.attacks[0].accuracy > 0.7
    started = by_itself(model={"from": str(tmp_path / "run")})
    robustplug.train(started, out=tmp_path / "started")
    assert "started_from" in read_json(tmp_path / "started" / "environment.json")


def test_attacks_by_gradients_are_refused(tmp_path: Path) -> None:
    recipe = by_itself(evaluate={"attack": [{"use": "pgd", "steps": 2}]})
    result = robustplug.train(recipe, out=tmp_path / "run").result
    assert "black-box" in result.attacks[1].skipped
    recipe = by_itself(validate={"attack": {"use": "fgsm"}})
    with pytest.raises(RunError, match='validate.attack cannot be run: .*choose another, or "none"'):
        robustplug.train(recipe, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("optimizer", {"optimizer": {"lr": 0.05}}),
        ("schedule", {"schedule": {"use": "cosine"}}),
        ("train.clip_grad_norm", {"train": {"clip_grad_norm": 1.0}}),
        ("train.class_weights", {"train": {"class_weights": "balanced"}}),
        ("train.ema_decay", {"train": {"ema_decay": 0.9}}),
        ("train.checkpoint_batches", {"train": {"checkpoint_batches": 1}}),
        ("train.precision", {"train": {"precision": "bfloat16"}}),
        ("train.fast", {"train": {"fast": "compile"}}),
        ("train.only", {"train": {"only": "batchnorm"}}),
    ],
)
def test_settings_without_effect_are_refused(key: str, table: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        robustplug.train(by_itself(**table), out=tmp_path / "run")
    assert [problem.key for problem in caught.value.problems] == [key]
    assert not (tmp_path / "run" / "recipe.toml").exists()
    assert NearestMean.calls == []


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "world", property(lambda self: 2))
    monkeypatch.setattr(train, "fitting_threads", lambda x: pytest.MonkeyPatch.context())
    with pytest.raises(RunError, match="train it in one process"):
        robustplug.train(by_itself(), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ({"use": "pgd-at"}, RunError, "the model has no gradients.* No checkpoint was written yet"),
        ({"use": "free-at"}, RunError, "needs a method with one pass and one view"),
        ({"use": "trades", "perturbation": {"use": "noise"}}, RunError, "one view"),
        ({"use": "erm", "label_map": {"use": "dirichlet"}}, RecipeError, "trains beta"),
    ],
)
def test_a_model_that_does_not_say_so_is_told_before_it_learns(
    method: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    recipe = {**by_itself(model={"use": "says-nothing"}), "method": method}
    with pytest.raises(error, match=message):
        robustplug.train(recipe, out=tmp_path / "run")
    assert NearestMean.calls == []
