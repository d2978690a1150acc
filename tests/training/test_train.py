from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import robustplug
from robustplug.core.method import Method
from robustplug.core.step import Step
from robustplug.core.types import EpochReport, Progress, RunInfo, View
from robustplug.plugin.component import Component, MethodOptions
from robustplug.recipe.load import read_recipe
from robustplug.runs.result_file import result_from_json
from robustplug.training import train as engine_train
from robustplug.training.train import Trained

from .runs import BATCHES, digest, newest, offered, outcome, read_json, tiny

FILES = {
    ".lock",
    "recipe.toml",
    "manifest.json",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "model.safetensors",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return robustplug.train(tiny("pgd-at"), out=tmp_path_factory.mktemp("runs") / "tiny")


def test_a_run_folder_holds_these_files(trained: Trained) -> None:
    assert {path.name for path in trained.folder.iterdir()} == FILES | {"checkpoints"}
    environment = read_json(trained.folder / "environment.json")
    assert environment["packages"]["torch"] == metadata.version("torch")
    assert environment["device"] == "cpu"
    assert environment["processes"] == 1
    assert "builtin" in environment["plugins"]


def test_metrics_are_a_line_an_epoch_and_equal_the_history(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines == [asdict(report) for report in trained.history]
    assert lines == read_json(trained.folder / "result.json")["history"]
    assert all(set(line["validation"]) == {"clean", "robust"} for line in lines)
    assert all("loss" in line["train"] and "accuracy/adv" in line["train"] for line in lines)


def test_the_result_file_reads_back_to_the_result(trained: Trained) -> None:
    result = result_from_json(read_json(trained.folder / "result.json"))
    assert result == trained.result
    assert result.samples == len(result.attacks[0].right) == 48
    assert [row.name for row in result.attacks] == ["clean", "pgd (steps=2)"]


def test_the_exported_weights_are_those_of_the_selected_checkpoint(trained: Trained) -> None:
    weights = load_file(trained.folder / "model.safetensors")
    assert weights.keys() == trained.model.state_dict().keys()
    selected = load_file(
        trained.folder / "checkpoints" / f"{trained.result.meta['training']['selected']}.safetensors"
    )
    for key, value in trained.model.state_dict().items():
        assert torch.equal(weights[key], value)
        assert torch.equal(selected[f"model/{key}"], value)
    assert not trained.model.training


def test_the_stored_recipe_runs_to_the_same_bits(trained: Trained, tmp_path: Path) -> None:
    again = robustplug.train(trained.folder / "recipe.toml", out=tmp_path / "again")
    assert read_recipe(trained.folder / "recipe.toml") == read_recipe(again.folder / "recipe.toml")
    assert outcome(again.folder) == outcome(trained.folder)


def test_another_seed_gives_other_weights(trained: Trained, tmp_path: Path) -> None:
    other = robustplug.train(tiny("pgd-at", seed=1), out=tmp_path / "other")
    assert digest(other.folder / "model.safetensors") != digest(trained.folder / "model.safetensors")


def test_global_generators_are_left_alone_and_not_listened_to(trained: Trained, tmp_path: Path) -> None:
    torch.rand(3)
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    again = robustplug.train(tiny("pgd-at"), out=tmp_path / "again")
    after = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    assert torch.equal(before[0], after[0])
    assert all(np.array_equal(one, two) for one, two in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]
    assert outcome(again.folder) == outcome(trained.folder)


class Listener:
    def __init__(self) -> None:
        self.began: list[Progress] = []
        self.batches: list[Progress] = []
        self.epochs: list[int] = []
        self.attacks: list[tuple[str, int, int]] = []

    def begin(self, run: RunInfo, progress: Progress) -> None:
        self.began.append(progress)

    def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
        assert means["loss"] > 0
        self.batches.append(progress)

    def epoch(self, report: EpochReport, epochs: int) -> None:
        self.epochs.append(report.epoch)

    def attack(self, name: str, done: int, total: int) -> None:
        self.attacks.append((name, done, total))

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def test_progress_counts_epochs_batches_and_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_train, "REFRESH", -1.0)
    listener = Listener()
    robustplug.train(tiny("free-at"), out=tmp_path / "run", reporter=listener)
    replays, total = 2, 2 * BATCHES * 2
    assert [(p.epoch, p.batch, p.update) for p in listener.batches] == [
        (epoch, batch, replays * (epoch * BATCHES + batch))
        for epoch in range(2)
        for batch in range(1, BATCHES + 1)
    ]
    assert {(p.epochs, p.batches, p.updates) for p in listener.batches} == {(2, BATCHES, total)}
    assert [(p.epoch, p.batch, p.batches) for p in listener.began] == [(0, 0, BATCHES)]
    assert listener.epochs == [0, 1]
    assert ("clean", 48, 48) in listener.attacks


def test_training_costs_what_the_method_declares(tmp_path: Path) -> None:
    run = robustplug.train(tiny("trades"), out=tmp_path / "run")
    training = run.result.meta["training"]
    cost = robustplug.build("method", "trades", perturbation={"steps": 2}).cost()
    assert (training["forwards_per_sample"], training["backwards_per_sample"]) == cost
    assert training["epochs"] == 2


@pytest.mark.parametrize("select", ["robust", "clean", "last"])
def test_the_selected_epoch_is_the_first_best_or_the_last(tmp_path: Path, select: str) -> None:
    train = {"epochs": 4, "select": select}
    run = robustplug.train(tiny(train=train, optimizer={"lr": 0.2}), out=tmp_path / "run")
    if select == "last":
        expected = 3
    else:
        scores = [report.validation[select] for report in run.history]
        expected = scores.index(max(scores))
    flagged = [report.epoch for report in run.history if report.best]
    assert flagged[-1] == expected
    assert run.result.meta["training"]["selected"] == f"epoch-{expected + 1:05d}-batch-0000000"
    assert (run.folder / "checkpoints" / f"{run.result.meta['training']['selected']}.json").is_file()


def test_validation_is_due_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    run = robustplug.train(tiny(train={"epochs": 5}, validate={"every": 2}), out=tmp_path / "run")
    assert [bool(report.validation) for report in run.history] == [False, True, False, True, True]


def test_averaged_weights_are_those_evaluated(tmp_path: Path) -> None:
    run = robustplug.train(tiny(train={"ema_decay": 0.5, "select": "last"}), out=tmp_path / "run")
    saved = load_file(run.folder / "checkpoints" / f"{newest(run.folder)}.safetensors")
    weights = run.model.state_dict()
    assert all(torch.equal(saved[f"ema/module.{key}"], value) for key, value in weights.items())
    assert any(not torch.equal(saved[f"model/{key}"], value) for key, value in weights.items())


def test_clipping_and_cadence_of_checkpoints(trained: Trained, tmp_path: Path) -> None:
    often = robustplug.train(tiny("pgd-at", train={"checkpoint_batches": 3}), out=tmp_path / "often")
    clipped = robustplug.train(tiny("pgd-at", train={"clip_grad_norm": 0.01}), out=tmp_path / "clipped")
    weights = digest(trained.folder / "model.safetensors")
    assert digest(often.folder / "model.safetensors") == weights, "saving must not change the training"
    assert digest(clipped.folder / "model.safetensors") != weights


class LogsNan(Method[MethodOptions]):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        step.log("odd", torch.full((len(step.batch),), torch.nan))


def test_a_logged_quantity_that_is_no_number_does_not_cost_the_result(tmp_path: Path) -> None:
    with offered("method", Component("logs-nan", f"{__name__}:LogsNan", MethodOptions)):
        run = robustplug.train(tiny("logs-nan"), out=tmp_path / "run")
    body = json.loads((run.folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert result_from_json(body).attacks == run.result.attacks
