"""What watches a run: TensorBoard's events and MLflow's runs read back, and that neither can stop a run."""

from __future__ import annotations

import importlib.util
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.core.types import AttackResult, EpochReport, Result, RunInfo
from robustplug.errors import RunError
from robustplug.plugin.host import PluginHost, check_observers, host
from robustplug_mlflow.log import flat, metric_name
from tests.training.runs import tiny

ROWS = (
    AttackResult("clean", {}, 0.9, 1, 10, 0, 1.0, 1.0, 1.0),
    AttackResult("pgd (steps=5)", {}, 0.5, 1, 10, 0, 1.0, 1.0, 1.0),
    AttackResult("apgd-dlr", {}, float("nan"), 0, 0, 0, 0.0, 0.0, 0.0, skipped="two classes"),
)
RESULT = Result("test", 10, {}, ROWS)


def info(folder: Path, *observers: str, **changes: Any) -> RunInfo:
    return RunInfo("x", str(folder), "erm", "digits", "small-cnn", 2, observers=observers, **changes)


def report(epoch: int, loss: float) -> EpochReport:
    return EpochReport(epoch, {"loss": loss, "accuracy/adv": 0.4}, {"clean": 0.8}, 0.1, 2.0, True)


def plugin(name: str) -> PluginHost:
    return PluginHost([(EntryPoint(name, f"robustplug_{name}", "robustplug"), "robustplug", "0")])


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_has_the_curves_also_of_a_run_that_went_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watching, run = plugin("tensorboard"), info(tmp_path, "tensorboard")
    watching.run_start(run)
    watching.epoch_end(run, report(0, 1.5))
    watching.epoch_end(run, report(1, 9.0))  # after the last checkpoint: it will be trained again
    again = info(tmp_path, "tensorboard", resumed_at_epoch=1)
    watching.run_start(again)
    watching.epoch_end(again, report(1, 1.25))
    watching.run_end(again, RESULT)
    assert watching.warnings == []
    found = events(tmp_path)
    assert found["train/loss"] == [(0, 1.5), (1, 1.25)]
    assert [step for step, _ in found["validation/clean"]] == [0, 1]
    assert {"train/accuracy/adv", "lr", "seconds"} <= set(found)
    tests = {tag: values for tag, values in found.items() if tag.startswith("test/")}
    assert list(tests) == ["test/clean", "test/pgd (steps=5)"]
    ((step, value),) = tests["test/clean"]
    assert step == 2
    assert value == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_run_that_did_not_ask_is_left_alone(name: str, tmp_path: Path) -> None:
    watching, run = plugin(name), info(tmp_path, "another")
    watching.run_start(run)
    watching.epoch_end(run, report(0, 1.0))
    watching.run_end(run, RESULT)
    assert list(tmp_path.iterdir()) == []
    assert watching.warnings == []


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_run_goes_on_without_an_observer_that_is_not_installed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked, *rest: None if asked == name else find(asked)
    )
    warned: list[str] = []

    class Reporter:
        def warn(self, message: str) -> None:
            warned.append(message)

        def __getattr__(self, _: str) -> Any:
            return lambda *_: None

    monkeypatch.setattr(host(), "_dropped", set())
    reporter: Any = Reporter()
    trained = robustplug.train(tiny(), out=tmp_path / "run", observers=[name], reporter=reporter)
    assert trained.result.attacks[0].name == "clean"
    (line,) = warned
    assert f'pip install "robustplug[{name}]"' in line
    assert "is not called again" in line


def test_an_observer_that_there_is_not_is_an_error_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r'no observer "tensorbord"\. Did you mean "tensorboard"\?'):
        robustplug.train(tiny(), observers=["tensorbord"])
    with pytest.raises(RunError, match='"cat"'):
        robustplug.study("methods", observers=["cat"])
    assert list(tmp_path.iterdir()) == []
    check_observers(["mlflow", "tensorboard"])


def test_recipes_become_parameters_and_names_what_mlflow_takes() -> None:
    recipe = {"name": "a", "method": {"eps": 0.1, "b": [1, 2]}, "evaluate": {"attack": [{"use": "pgd"}]}}
    expected = {"name": "a", "method.eps": "0.1", "method.b": "[1, 2]", "evaluate.attack.0.use": "pgd"}
    assert dict(flat(recipe)) == expected
    assert metric_name("test/pgd (steps=50, ε=1)") == "test/pgd _steps_50_ __1_"


@pytest.mark.slow  # the import alone takes seconds
def test_mlflow_has_a_run_also_of_a_run_that_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text('name = "x"\n[task]\nuse = "digits"\n')
    (folder / "result.json").write_text("{}")
    watching, run = plugin("mlflow"), info(folder, "mlflow")
    watching.run_start(run)
    watching.epoch_end(run, report(0, 1.5))
    again = info(folder, "mlflow", resumed_at_epoch=1)
    watching.run_start(again)
    watching.epoch_end(again, report(1, 1.25))
    watching.run_end(again, RESULT)
    assert watching.warnings == []
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("robustplug").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params == {"name": "x", "task.use": "digits"}
    assert found.data.metrics["test/pgd _steps_5_"] == 0.5
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.5), (1, 1.25)]
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"recipe.toml", "result.json"}
