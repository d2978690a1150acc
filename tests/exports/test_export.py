"""An exported file computes what the model of the run does and says what it is, or there is no file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

import robustplug
from robustplug.api import TaskInfo
from robustplug.cli import main
from robustplug.errors import RunError
from robustplug.exports import writers
from robustplug.exports.check import compare
from robustplug.exports.export import Exported
from robustplug.subjects.formats.contents import stated_model

from ..training.runs import TASK, tiny
from ..training.test_resume import Killed, kill_after_save

# Digits as in the runs, so that the file is evaluated on the same samples.
OPTIONS = [f"task.{key}={value}" for key, value in TASK.items() if key != "use"]
FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "huggingface": ""}
QUICK = [to for to in FORMATS if to != "onnx"]

Export = Callable[[str], Exported]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return robustplug.train(
        tiny("trades", train={"epochs": 1}), out=tmp_path_factory.mktemp("runs") / "run"
    ).folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Export:
    """Export the run in a format, once."""
    known: dict[str, Exported] = {}

    def export(to: str) -> Exported:
        if to == "onnx":
            for package in ("onnx", "onnxruntime", "onnxscript"):
                pytest.importorskip(package)
        if to not in known:
            known[to] = robustplug.export(run, to)
        return known[to]

    return export


@pytest.mark.parametrize("to", [*QUICK, pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_file_evaluated_again_has_the_accuracy_of_the_run(to: str, exported: Export, run: Path) -> None:
    found = exported(to)
    assert found.path == run / "exported" / f"tiny{FORMATS[to]}"
    assert (found.shape, found.classes) == ((1, 8, 8), 10)
    agreement = found.agreement
    assert agreement.holds
    assert (agreement.batches, agreement.samples, agreement.same) == (10, 1600, 1600)
    assert agreement.difference <= 1e-5
    attacks = ["square"] if to == "onnx" else ["fgsm"]
    more: dict[str, Any] = {"attacks": attacks, "samples": 64, "device": "cpu"}
    before = robustplug.evaluate(run, **more)
    after = robustplug.evaluate(found.path, task={"use": "digits", **TASK}, **more)
    assert [row.right for row in after.attacks] == [row.right for row in before.attacks]
    assert before.attacks[0].accuracy > 0
    assert (
        agreement.accuracies[0]
        == agreement.accuracies[1]
        == robustplug.evaluate(run, attacks=[], samples=1600, device="cpu").attacks[0].accuracy
    )


@pytest.mark.table(1)
@pytest.mark.parametrize("to", FORMATS)
def test_every_batch_size(to: str, exported: Export, run: Path) -> None:
    path = exported(to).path
    opened = robustplug.run.open_evaluation(path, task="digits", attacks=["noise"], device="cpu")
    plain = robustplug.run.open_evaluation(run, attacks=["noise"], device="cpu")
    for rows in (1, 2, 33):
        x = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(rows))
        with torch.no_grad():
            ours, theirs = opened.evaluation.model(x), plain.evaluation.model(x)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("to", ["safetensors", "huggingface"])
def test_weights_state_their_architecture(to: str, exported: Export) -> None:
    path = exported(to).path
    stated = stated_model(path)
    assert stated is not None
    table, weights = stated
    assert table == {"use": "small-cnn", "normalize": True, "width": 4, "hidden": 16, "batchnorm": True}
    info = robustplug.build("task", "digits").info
    options = {key: value for key, value in table.items() if key != "use"}
    robustplug.build("model", "small-cnn", info=info, **options).load_state_dict(load_file(weights))
    result = robustplug.evaluate(path, task="digits", attacks=[], samples=20)
    assert result.meta["model"] == "small-cnn"


def test_a_fine_tuned_model_states_its_architecture_only(run: Path, tmp_path: Path) -> None:
    recipe = tiny(train={"epochs": 1}, model={"from": str(run), "freeze": ["network.0"]})
    robustplug.train(recipe, out=tmp_path / "run")
    found = robustplug.export(tmp_path / "run", "safetensors")
    stated = stated_model(found.path)
    assert stated is not None
    assert not {"from", "freeze", "head"} & set(stated[0])
    robustplug.evaluate(found.path, task="digits", attacks=[], samples=10)


def test_a_stated_architecture_gives_way_to_that_of_the_caller(exported: Export) -> None:
    with pytest.raises(RunError, match="does not fit"):
        robustplug.evaluate(
            exported("safetensors").path, task="digits", architecture={"use": "small-cnn", "width": 5}
        )


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": 3}', '{"model": {"width": 4}}', '{"model": {"use": 1}}']
)
def test_a_damaged_statement_is_none(text: str, exported: Export, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file(load_file(exported("safetensors").path), path, {"robustplug": text})
    with pytest.raises(RunError, match="contains only weights"):
        robustplug.evaluate(path, task="digits")
    folder = shutil.copytree(exported("huggingface").path, tmp_path / "folder")
    (folder / "config.json").write_text(f'{{"robustplug": {text}}}')
    with pytest.raises(RunError, match="is a folder|not a run folder"):
        robustplug.evaluate(folder, task="digits")


def test_a_statement_of_a_component_that_is_not_installed(exported: Export, tmp_path: Path) -> None:
    folder = shutil.copytree(exported("huggingface").path, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    config["robustplug"]["model"]["use"] = "smal-cnn"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match='no model is named "smal-cnn". Did you mean "small-cnn"'):
        robustplug.evaluate(folder, task="digits")


def test_the_card_has_the_numbers_and_code_that_runs(
    exported: Export, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported("huggingface").path
    text = (folder / "README.md").read_text()
    result = json.loads((run / "result.json").read_text())
    for row in result["attacks"]:
        assert f"| {row['name']} | {row['accuracy']:.1%} |" in text
    assert "Threat model: linf, eps = " in text
    assert "inputs (N, 1, 8, 8) in [0, 1]" in text
    assert text.startswith("---\nlibrary_name: robustplug\n")
    (code,) = [part.removeprefix("python\n") for part in text.split("```") if part.startswith("python\n")]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    (command,) = [part.removeprefix("bash\n") for part in text.split("```") if part.startswith("bash\n")]
    done = CliRunner().invoke(main, [*command.split()[1:], "--set", "evaluate.attack=[]", "--quiet"])
    assert done.exit_code == 0, done.output


def test_the_command_prints_the_numbers(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net.pt2"
    done = CliRunner().invoke(main, ["export", str(run), "--to", "torch-export", "--out", str(path)])
    assert done.exit_code == 0, done.output
    assert f"Written to {path}: from inputs (N, 1, 8, 8) to logits (N, 10)." in done.output
    assert "1600 of 1600 predictions in 10 batches agree" in done.output
    assert "accepted: " in done.output
    again = CliRunner().invoke(main, ["export", str(run), "--to", "torch-export", "--out", str(path)])
    assert again.exit_code == 2
    assert "exists already" in again.output
    unknown = CliRunner().invoke(main, ["export", str(run), "--to", "onx"])
    assert unknown.exit_code == 2
    shown = CliRunner().invoke(main, ["export", "--help"]).output
    assert all(to in shown for to in writers.FORMATS)


@pytest.mark.parametrize("to", QUICK)
def test_a_file_that_disagrees_is_removed(
    to: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, write = writers.FORMATS[to]

    def wrong(content: Any, path: Path) -> None:
        with torch.no_grad():
            last = list(content.module.parameters())[-1]
            last[3] += 0.01
            write(content, path)
            last[3] -= 0.01

    monkeypatch.setitem(writers.FORMATS, to, writers.Format(suffix, wrong))
    with pytest.raises(
        RunError, match=r"disagrees with the model of .*, and is removed: \d+ of 1600.*at most 0.01"
    ):
        robustplug.export(run, to, tmp_path / f"net{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", QUICK)
def test_a_file_that_cannot_be_opened_again_is_removed(
    to: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, write = writers.FORMATS[to]

    def broken(content: Any, path: Path) -> None:
        write(content, path)
        file = path / "model.safetensors" if path.is_dir() else path
        file.write_bytes(file.read_bytes()[:-40])

    monkeypatch.setitem(writers.FORMATS, to, writers.Format(suffix, broken))
    with pytest.raises(RunError, match="cannot be used, and is removed") as caught:
        robustplug.export(run, to, tmp_path / f"net{suffix}")
    assert ".tmp" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_dies_leaves_no_file_of_that_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustplug.exports.check.compare", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        robustplug.export(run, "safetensors", tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_places_and_names_that_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match='no format "onx"; did you mean "onnx"'):
        robustplug.export(run, "onx")
    with pytest.raises(RunError, match=r'net\.bin must end in "\.safetensors"'):
        robustplug.export(run, "safetensors", tmp_path / "net.bin")
    with pytest.raises(RunError, match="is not a run folder"):
        robustplug.export(tmp_path, "safetensors")
    with pytest.raises(RunError, match="does not exist"):
        robustplug.export(tmp_path / "nothing", "safetensors")
    (tmp_path / "kept").mkdir()
    with pytest.raises(RunError, match="exists already"):
        robustplug.export(run, "huggingface", tmp_path / "kept")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        robustplug.export(run, "safetensors", tmp_path / "file" / "net.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept"]


def test_a_missing_package_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    pytest.importorskip("onnx")
    with pytest.raises(RunError, match=r'needs onnxscript .*pip install "robustplug\[onnx\]"'):
        robustplug.export(run, "onnx", tmp_path / "net.onnx")


def test_an_unfinished_run_is_exported_with_a_warning(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=tmp_path / "run")
    with pytest.warns(UserWarning, match="not finished"):
        found = robustplug.export(tmp_path / "run", "huggingface")
    assert "its robustness is not measured" in (found.path / "README.md").read_text()


class Branching(nn.Module):
    """A network that torch.export cannot represent: its path depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits if float(x.sum()) > 0 else 2 * logits


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Any:
    task = robustplug.build("task", "digits", **{k: v for k, v in TASK.items() if k != "use"})
    folder = tmp_path_factory.mktemp("runs") / "given"
    return robustplug.train(tiny(train={"epochs": 1}), model=Branching(), data=task, out=folder)


def test_what_cannot_be_exported_is_said(given: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the model cannot be exported as torch-export: "):
        robustplug.export(given, "torch-export", tmp_path / "net.pt2")
    for to in ("safetensors", "huggingface"):
        with pytest.raises(RunError, match="the model was given from Python"):
            robustplug.export(given, to)
    assert list(tmp_path.iterdir()) == []
    assert list((given.folder / "exported").iterdir()) == []


def test_a_run_on_objects_of_a_script_needs_what_train_returned(given: Any) -> None:
    with pytest.raises(RunError, match=r"robustplug\.export\(trained, …\)"):
        robustplug.export(given.folder, "torch-export")


def test_own_tables_with_bounds(tmp_path: Path) -> None:
    x = 40 * torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) - 20
    y = (x.sum(1) > 0).long()
    trained = robustplug.train(
        tiny(method={"vicinity": {"use": "linf", "eps": 1.0}}),
        model=nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)),
        data=(x, y),
        bounds=(-20, 20),
        validation=0.2,
        test=0.3,
        out=tmp_path / "run",
    )
    found = robustplug.export(trained, "torch-export")
    assert found.shape == (5,)
    assert found.agreement.samples == 60
    again = robustplug.evaluate(found.path, data=(x, y), bounds=(-20, 20), attacks=["fgsm"])
    before = robustplug.evaluate(trained.model, data=(x, y), bounds=(-20, 20), attacks=["fgsm"])
    assert [row.right for row in again.attacks] == [row.right for row in before.attacks]


def test_tasks_without_inputs_of_one_shape_are_refused(given: Any) -> None:
    info = TaskInfo({"test": 4})
    parts = SimpleNamespace(recipe=given.parts.recipe, task=SimpleNamespace(info=info))
    with pytest.raises(RunError, match="only classifiers of inputs of one shape"):
        robustplug.export(dataclasses.replace(given, parts=parts), "torch-export")


def test_numbers_that_are_not_finite_never_agree() -> None:
    task = robustplug.build("task", "digits")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    bad = nn.Sequential(net, nn.Threshold(1e9, float("nan")))
    assert compare(net, net, task, "test", 256).holds
    assert not compare(net, bad, task, "test", 256).holds
    with pytest.raises(RunError, match=r"returns \(\d+, 3\)"):
        compare(net, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), task, "test", 256)


VIT = {
    "use": "huggingface-image",
    "name": "vit",
    "config": {
        "patch_size": 4,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}


@pytest.mark.parametrize("normalize", [True, False])
def test_models_of_transformers_are_saved_by_themselves(normalize: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    recipe = {**tiny(train={"epochs": 1}), "model": {**VIT, "normalize": normalize}}
    trained = robustplug.train(recipe, out=tmp_path / "run")
    found = robustplug.export(tmp_path / "run", "huggingface", tmp_path / "vit")
    assert found.agreement.same == found.agreement.samples == 1600
    loaded = transformers.ViTForImageClassification.from_pretrained(found.path, local_files_only=True).eval()
    stated = json.loads((found.path / "preprocessor_config.json").read_text())
    assert stated["do_normalize"] is normalize
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, std = torch.tensor(stated.get("image_mean", 0.0)), torch.tensor(stated.get("image_std", 1.0))
        torch.testing.assert_close(loaded(pixel_values=(x - mean) / std).logits, trained.model(x))
    text = (found.path / "README.md").read_text()
    assert "library_name: transformers" in text
    assert 'ViTForImageClassification.from_pretrained(".")' in text
    assert "robustplug evaluate huggingface-image:. --task digits" in text
    more: dict[str, Any] = {"attacks": ["fgsm"], "samples": 200, "device": "cpu"}
    after = robustplug.evaluate(
        f"huggingface-image:{found.path}",
        task={"use": "digits", **TASK},
        overrides=[] if normalize else ["model.normalize=false"],
        **more,
    )
    before = robustplug.evaluate(tmp_path / "run", **more)
    assert [row.right for row in after.attacks] == [row.right for row in before.attacks]


def test_boosted_trees_say_what_they_cannot(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    recipe = tiny(model={"use": "lightgbm"}, optimizer={"lr": 0.1}, train={"epochs": 1})
    recipe = {**recipe, "model": {"use": "lightgbm", "trees": 2}}
    del recipe["optimizer"]
    recipe["validate"]["attack"] = {"use": "noise"}
    recipe["evaluate"]["attack"] = [{"use": "noise"}]
    robustplug.train(recipe, out=tmp_path / "run")
    with pytest.raises(RunError, match="cannot be exported as torch-export"):
        robustplug.export(tmp_path / "run", "torch-export")
    assert robustplug.export(tmp_path / "run", "safetensors").agreement.difference == 0
