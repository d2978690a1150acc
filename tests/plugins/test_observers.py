"""What watches a run: TensorBoard's events and MLflow's runs read back, and that neither can stop a run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import time
from collections.abc import Iterator
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


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_run_that_did_not_ask_is_left_alone(name: str, tmp_path: Path) -> None:
    watching, run = plugin(name), info(tmp_path, "another")
    watching.run_start(run)
    watching.epoch_end(run, report(0, 1.0))
    watching.run_end(run, RESULT)
    assert list(tmp_path.iterdir()) == []
    assert watching.warnings == []


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
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
    check_observers(["mlflow", "tensorboard", "wandb"])


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


def records(file: Path) -> list[Any]:
    """Return the records of a finished run of wandb, whose service may write them a moment after `finish`."""
    for _ in range(200):
        found = list(parsed(file))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    pytest.fail(f"{file} has no end")


def parsed(file: Path) -> Iterator[Any]:
    """Yield the records of a log of wandb: protocol buffers in blocks of 32 KiB, as in logs of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    block, head = 32768, 7  # each part of a record: checksum, length, and 1 (whole), 2 (first), 3, 4 (last)
    data, at, body = file.read_bytes(), head, b""
    assert data[:4] in (b":W&B", b"")
    while at + head <= len(data):
        if block - at % block < head:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + head + size > len(data):
            return  # still being written
        body += data[at + head : at + head + size]
        at += head + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(body)
            body = b""
            yield record


def logged(folder: Path) -> tuple[list[str], dict[str, list[tuple[int, float]]], dict[str, Any], set[str]]:
    """Return the run id of each part, the metrics by epoch, the config, and the files of an offline run."""
    ids, metrics, config, files = [], dict[str, list[tuple[int, float]]](), dict[str, Any](), set[str]()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.append(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "files":
                files |= {item.path for item in record.files.files}
            elif kind == "history":
                row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for name, value in row.items():
                    metrics.setdefault(name, []).append((row["epoch"], value))
    return ids, metrics, config, files


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make wandb log to a folder, refuse every connection, and return the folder."""
    pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    # The service of wandb is a process of this machine, reached through a local socket.
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    return folder


@pytest.mark.slow
def test_wandb_has_a_run_also_of_a_run_that_went_on(offline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text('name = "x"\n[task]\nuse = "digits"\n')
    (folder / "result.json").write_text("{}")
    watching, run = plugin("wandb"), info(folder, "wandb")
    watching.run_start(run)
    watching.epoch_end(run, report(0, 1.5))
    again = info(folder, "wandb", resumed_at_epoch=1)
    watching.run_start(again)
    watching.epoch_end(again, report(1, 1.25))
    watching.run_end(again, RESULT)
    assert watching.warnings == []
    ids, metrics, config, files = logged(offline)
    known = json.loads((folder / "wandb.json").read_text())
    assert set(ids) == {known["run_id"]}
    assert len(list((offline / "wandb").glob(f"offline-run-*-{known['run_id']}"))) >= 1
    assert known["project"] == "robustplug"
    assert metrics["train/loss"] == [(0, 1.5), (1, 1.25)]
    assert metrics["validation/clean"] == [(0, 0.8), (1, 0.8)]
    assert {"train/accuracy/adv", "lr", "seconds"} <= set(metrics)
    assert metrics["test/clean"] == [(2, 0.9)]
    assert metrics["test/pgd (steps=5)"] == [(2, 0.5)]
    assert "test/apgd-dlr" not in metrics
    assert config["task"] == {"use": "digits"}
    assert {"recipe.toml", "result.json"} <= files


def test_wandb_starts_another_run_for_a_new_run_and_leaves_that_of_the_caller_alone(
    offline: Path, tmp_path: Path
) -> None:
    wandb = pytest.importorskip("wandb")
    with wandb.init(project="own", dir=offline, settings=wandb.Settings(silent=True)) as own:
        ids = []
        for name in ("one", "two"):
            folder = tmp_path / name
            robustplug.train(tiny(train={"epochs": 1}), out=folder, observers=["wandb"])
            ids.append(json.loads((folder / "wandb.json").read_text())["run_id"])
        assert wandb.run is own
        own.log({"mine": 1})
    assert len({*ids, own.id}) == 3
    file = next(offline.glob(f"wandb/offline-run-*-{own.id}/*.wandb"))
    names = {item.nested_key[0] for record in records(file) for item in record.history.item}
    assert "mine" in names
    assert not any(name.startswith("train/") for name in names)


def test_wandb_writes_to_the_run_folder_and_goes_on_after_an_extension(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    folder = tmp_path / "run"
    robustplug.train(tiny(train={"epochs": 1}), out=folder, observers=["wandb"])
    first = json.loads((folder / "wandb.json").read_text())
    assert first["project"] == "mine"
    with pytest.warns(UserWarning, match="2 epochs instead of 1"):
        robustplug.train(resume=folder, epochs=2, observers=["wandb"])
    assert json.loads((folder / "wandb.json").read_text()) == first
    ids, metrics, config, _ = logged(folder)
    assert set(ids) == {first["run_id"]}
    assert [epoch for epoch, _ in metrics["train/loss"]] == [0, 1]
    assert config["train"]["epochs"] == 2


DAMAGED = ["{", "[]", "3", "", "{}", '{"run_id": 3}', '{"run_id": "../x", "project": "p"}', "[" * 9999]


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_file_of_an_observer_that_is_damaged_is_named(name: str, text: str, tmp_path: Path) -> None:
    log = importlib.import_module(f"robustplug_{name}.log")
    (tmp_path / log.FILE).write_text(text)
    with pytest.warns(UserWarning, match=f"{log.FILE} .*the run is logged to another run") as caught:
        assert not log._known(tmp_path)
    assert "\n" not in str(caught[0].message)


def test_a_wandb_json_that_is_damaged_starts_another_run(offline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    robustplug.train(tiny(train={"epochs": 1}), out=folder, observers=["wandb"])
    (folder / "wandb.json").write_text("{")
    (folder / "result.json").unlink()
    with pytest.warns(UserWarning, match=r"wandb\.json is not valid JSON"):
        robustplug.train(resume=folder, observers=["wandb"])
    assert json.loads((folder / "wandb.json").read_text())["run_id"]
