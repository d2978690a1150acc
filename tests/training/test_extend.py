"""A run that is extended to more epochs goes on as one of that many epochs, and keeps what it had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import robustplug
from robustplug.cli import main
from robustplug.errors import RunError
from robustplug.runs.choose import stored_recipe
from robustplug.training import extend, store, train

from .runs import newest, outcome, read_json, tiny
from .test_resume import Killed, kill_after_save

KEPT = {"result-2-epochs.json", "model-2-epochs.safetensors", "evaluations-2-epochs", "report-2-epochs"}


class Reporter:
    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold runs of two and of four epochs, the first with an evaluation and a page."""
    top = tmp_path_factory.mktemp("runs")
    robustplug.train(tiny("trades"), out=top / "two")
    (top / "two" / "evaluations").mkdir()
    (top / "two" / "evaluations" / "quick.json").write_text("{}")
    (top / "two" / "report").mkdir()
    robustplug.train(tiny("trades", train={"epochs": 4}), out=top / "four")
    return top


@pytest.fixture
def two(top: Path, tmp_path: Path) -> Path:
    return shutil.copytree(top / "two", tmp_path / "run")


def what_is_left(folder: Path) -> dict[str, Any]:
    found = outcome(folder)
    found["result"]["meta"]["training"].pop("extended_from", None)
    return {**found, "recipe": (folder / "recipe.toml").read_text()}


def test_two_epochs_and_two_more_are_four_bit_for_bit_with_a_kill_in_between(top: Path, two: Path) -> None:
    before = read_json(two / "result.json")
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(resume=two, epochs=4)
    assert newest(two) == "epoch-00003-batch-0000000"
    assert not (two / "result.json").exists()
    assert {path.name for path in two.iterdir()} >= KEPT
    robustplug.train(resume=two)
    assert what_is_left(two) == what_is_left(top / "four")
    assert read_json(two / "result-2-epochs.json") == before
    assert (two / "evaluations-2-epochs" / "quick.json").is_file()
    assert not (two / "evaluations").exists()
    assert read_json(two / "result.json")["meta"]["training"]["extended_from"] == [2]


def test_a_run_is_extended_again_and_again(top: Path, two: Path) -> None:
    robustplug.train(resume=two, epochs=3)
    robustplug.train(resume=two, epochs=4)
    assert what_is_left(two) == what_is_left(top / "four")
    assert read_json(two / "environment.json")["extended_from"] == [2, 3]
    assert {"result-2-epochs.json", "result-3-epochs.json"} <= {path.name for path in two.iterdir()}


@pytest.mark.table(2)
@pytest.mark.parametrize("step", range(7))
def test_dying_while_a_run_is_extended(step: int, top: Path, two: Path) -> None:
    steps: list[str] = []

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            steps.append(real.__name__)
            if len(steps) == step + 1:
                raise Killed
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        for module, *names in (
            (extend, "put_aside", "write_manifest"),
            (store, "write_atomic", "write_json"),
        ):
            for name in names:
                monkeypatch.setattr(module, name, dying(getattr(module, name)))
        robustplug.train(resume=two, epochs=4)
    robustplug.train(resume=two, epochs=4)
    assert what_is_left(two) == what_is_left(top / "four")
    assert {path.name for path in two.iterdir()} >= KEPT


def test_dying_in_between_and_resuming_without_epochs_ends_with_the_old_number(two: Path) -> None:
    before = outcome(two)
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr(extend, "write_manifest", lambda *_: (_ for _ in ()).throw(Killed()))
        robustplug.train(resume=two, epochs=4)
    robustplug.train(resume=two)
    after = outcome(two)
    assert after["result"]["attacks"] == before["result"]["attacks"]
    assert after["model"] == before["model"]
    robustplug.train(resume=two, epochs=3)
    kept = sorted(path.name for path in two.glob("result*.json"))
    assert kept == ["result-2-epochs-2.json", "result-2-epochs.json", "result.json"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_that_are_trained_already_are_an_error(epochs: int, two: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in two.rglob("*") if path.name != ".lock"}
    match = (
        "finished.*--epochs 4" if epochs == 2 else r"epochs = 1 would train nothing: .* has trained 2 epochs"
    )
    with pytest.raises(RunError, match=f"(?s){match}"):
        robustplug.train(resume=two, epochs=epochs)
    assert {path: path.stat().st_mtime_ns for path in two.rglob("*") if path.name != ".lock"} == before


def test_no_number_of_epochs(two: Path) -> None:
    with pytest.raises(RunError, match="epochs = 0 is not a number of epochs"):
        robustplug.train(resume=two, epochs=0)


def test_an_unfinished_run_may_become_longer_or_shorter_but_not_than_what_is_trained(
    top: Path, tmp_path: Path
) -> None:
    recipe = tiny("trades", train={"epochs": 9, "checkpoint_batches": 1})
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 6)
        robustplug.train(recipe, out=folder)
    with pytest.raises(RunError, match="has trained 1 epochs and 2 batches of the next"):
        robustplug.train(resume=folder, epochs=1)
    robustplug.train(resume=folder, epochs=4)
    assert outcome(folder)["model"] == outcome(top / "four")["model"]
    assert not list(folder.glob("result-*")), "there was no result to keep"


def test_a_run_that_died_before_its_first_checkpoint_starts_with_the_new_number(
    top: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr(train.Training, "_epoch", lambda *_: (_ for _ in ()).throw(Killed()))
        robustplug.train(tiny("trades"), out=tmp_path / "run")
    robustplug.train(resume=tmp_path / "run", epochs=4)
    assert outcome(tmp_path / "run") == outcome(top / "four")


def test_the_warning_says_what_the_schedule_does(two: Path, tmp_path: Path) -> None:
    constant, cosine = Reporter(), Reporter()
    robustplug.train(resume=two, epochs=3, reporter=constant)
    (line,) = constant.warned
    assert line == (
        "the run now has 3 epochs instead of 2, 2 of which are trained; "
        'the schedule "constant" does not depend on their number'
    )
    recipe = tiny(schedule={"use": "cosine"}, optimizer={"lr": 0.1})
    robustplug.train(recipe, out=tmp_path / "cosine")
    found = robustplug.train(resume=tmp_path / "cosine", epochs=4, reporter=cosine)
    (line,) = cosine.warned
    assert 'The schedule "cosine" was made for 2 epochs' in line
    assert "the last update used 0 times" in line
    assert "continues at 0.5 times" in line
    assert "ends at 0:" in line
    # Four batches an epoch: the last update of the third epoch is at 2.75 of 4.
    assert found.history[2].lr == pytest.approx(
        0.05 * (1 + torch.cos(torch.tensor(torch.pi * 2.75 / 4)).item())
    )


def test_a_recipe_beside_it_must_be_that_of_the_run(two: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"seed: the run has 0, the recipe 1"):
        robustplug.train(tiny("trades", seed=1), out=two, resume=True, epochs=4)
    trained = robustplug.train(tiny("trades"), out=two, resume=True, epochs=3)
    assert len(trained.history) == 3
    again = tiny("trades")  # says two epochs, and the folder three
    assert len(robustplug.train(again, out=two, resume=True, epochs=4).history) == 4


@pytest.mark.parametrize("changed", ["seed = 0", "beta = "])
def test_an_edited_recipe_is_refused(changed: str, two: Path) -> None:
    path = two / "recipe.toml"
    text = path.read_text()
    assert changed in text
    path.write_text(text.replace(changed, "seed = 7" if "seed" in changed else "beta = 1"))
    with pytest.raises(RunError, match=r"recipe\.toml was edited after the run started"):
        robustplug.train(resume=two, epochs=4)
    assert (two / "result.json").is_file()
    assert stored_recipe(two).train.epochs == 2


def test_another_recipe_is_refused_also_after_the_extension(two: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr(train.Training, "_epoch", lambda *_: (_ for _ in ()).throw(Killed()))
        robustplug.train(resume=two, epochs=4)
    path = two / "recipe.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 7"))
    with pytest.raises(RunError, match=r"recipe\.toml was edited after the run started"):
        robustplug.train(resume=two)


def test_a_record_that_cannot_be_read_is_named_and_left(two: Path) -> None:
    (two / "environment.json").write_text("{")
    robustplug.train(resume=two, epochs=3, reporter=(heard := Reporter()))
    assert any("environment.json is not valid JSON" in line for line in heard.warned)
    assert (two / "environment.json").read_text() == "{"
    assert read_json(two / "result.json")["meta"]["training"]["extended_from"] == [2]


def test_a_run_that_stopped_for_a_collapse_is_not_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (train, extend):
        monkeypatch.setattr(module, "collapsed", lambda history: len(history) == 1)
    robustplug.train(tiny(train={"stop_on_collapse": True}), out=tmp_path / "run")
    with pytest.raises(RunError, match="stopped after 1 epochs, when the robust accuracy collapsed"):
        robustplug.train(resume=tmp_path / "run", epochs=4)


def test_objects_of_a_script_are_given_again(tmp_path: Path) -> None:
    x = torch.rand(120, 4, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 2).long()
    net = nn.Linear(4, 2)
    options: dict[str, Any] = {"model": net, "data": (x, y), "validation": 0.2}
    robustplug.train("erm", **options, epochs=1, out=tmp_path / "run")
    found = robustplug.train("erm", **options, epochs=2, out=tmp_path / "run", resume=True)
    assert [report.epoch for report in found.history] == [0, 1]
    with pytest.raises(RunError, match="model"):
        robustplug.train(
            "erm", **{**options, "model": nn.Linear(4, 2)}, epochs=3, out=tmp_path / "run", resume=True
        )


def test_the_command_line(two: Path) -> None:
    done = CliRunner().invoke(main, ["train", "--resume", str(two), "--epochs", "3"])
    assert done.exit_code == 0, done.output
    assert "3 epochs instead of 2" in " ".join(done.output.split())
    again = CliRunner().invoke(main, ["train", "--resume", str(two), "--epochs", "1", "--quiet"])
    assert again.exit_code == 2
    assert "would train nothing" in again.output
    assert "Traceback" not in again.output
    none = CliRunner().invoke(main, ["train", "--resume", str(two), "--epochs", "0"])
    assert none.exit_code == 2


def test_epochs_of_a_new_run_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def note(*_: Any, **options: Any) -> Any:
        asked.update(options)
        raise RunError("enough")

    monkeypatch.setattr(robustplug.run, "train", note)
    CliRunner().invoke(main, ["train", "--recipe", "cat", "--epochs", "5"])
    assert (asked["epochs"], asked["resume"]) == (5, False)
