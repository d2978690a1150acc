"""A run folder that is damaged, edited, mixed up or moved: named, and continued with what is sound."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.reporting import Silent
from robustplug.errors import Refused, RunError
from robustplug.runs.heads import name_of
from robustplug.subjects.trained import open_model
from robustplug.training import train
from robustplug.training.session import Session
from robustplug.training.train import Training

from .runs import outcome, read_json, tiny
from .test_resume import Killed, kill_after_save

pytestmark = pytest.mark.table

RECIPE = tiny(
    train={"epochs": 4},
    validate={"samples": 8, "attack": {"use": "none"}},
    evaluate={"samples": 16, "attack": [{"use": "fgsm"}]},
)
# Of the epochs 1 to 4.
SCORES = (0.9, 0.5, 0.7, 0.6)


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, message: str) -> None:
        self.lines.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "selection_score", lambda select, epoch, validation: SCORES[epoch - 1])


def unfinished(folder: Path, epochs: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        scored(monkeypatch)
        kill_after_save(monkeypatch, epochs)
        robustplug.train(RECIPE, out=folder)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold two runs of one recipe that died after three epochs, and a whole one."""
    top = tmp_path_factory.mktemp("runs")
    for name in ("one", "other"):
        unfinished(top / name, 3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        scored(monkeypatch)
        robustplug.train(RECIPE, out=top / "whole")
    return top


@pytest.fixture
def run(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    scored(monkeypatch)
    return shutil.copytree(top / "one", tmp_path / "run")


@pytest.fixture
def whole(top: Path, tmp_path: Path) -> Path:
    return shutil.copytree(top / "whole", tmp_path / "whole")


def resume(folder: Path) -> tuple[Any, str]:
    trained = robustplug.train(resume=folder, reporter=(heard := Heard()))
    return trained, heard.text


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))


def parts(folder: Path, epoch: int) -> list[Path]:
    return [folder / "checkpoints" / f"{name_of(epoch, 0)}{suffix}" for suffix in (".json", ".safetensors")]


def test_the_fixture_selects_the_first_epoch(run: Path, top: Path) -> None:
    trained, said = resume(run)
    assert said == ""
    assert trained.result.meta["training"]["selected"] == name_of(1, 0)
    assert outcome(run) == outcome(top / "whole")


@pytest.mark.parametrize(("part", "harm"), [(0, Path.unlink), (1, flip)])
def test_a_damaged_selection_is_made_anew(part: int, harm: Callable[[Path], None], run: Path) -> None:
    harm(parts(run, 1)[part])
    found = robustplug.evaluate(run, reporter=(heard := Heard()))
    assert f"{name_of(3, 0)} is selected instead" in heard.text
    trained, said = resume(run)
    assert f"{name_of(3, 0)} is selected instead, with the score 0.7 in place of 0.9" in said
    assert trained.result.meta["training"]["selected"] == name_of(3, 0)
    assert trained.result.attacks[0].right == found.attacks[0].right
    assert [report.epoch for report in trained.history] == [0, 1, 2, 3]


def test_a_selection_that_is_damaged_while_the_run_trains(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Training._epoch

    def harmed(self: Training, session: Session, stop: Any) -> None:
        epoch(self, session, stop)
        parts(run, 1)[1].write_bytes(b"")

    monkeypatch.setattr(Training, "_epoch", harmed)
    trained, said = resume(run)
    assert "is selected instead" in said
    assert trained.result.meta["training"]["selected"] == name_of(3, 0)


def test_foreign_checkpoints_are_named_not_used_and_not_deleted(run: Path, top: Path) -> None:
    others = top / "other" / "checkpoints"
    for path in others.glob(f"{name_of(3, 0)}.*"):
        shutil.copy(path, run / "checkpoints" / path.name)
    before = [path.read_bytes() for path in parts(run, 3)]
    _, said = resume(run)
    assert f"checkpoint {name_of(3, 0)} cannot be used: {name_of(3, 0)}.json belongs to another run" in said
    assert f"resuming from {name_of(2, 0)}" in said
    assert outcome(run) == outcome(top / "whole")
    kept = [path.with_stem(f"{path.stem}-unused").read_bytes() for path in parts(run, 3)]
    assert kept == before


def test_a_whole_folder_of_foreign_checkpoints_is_refused(run: Path, top: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(top / "other" / "checkpoints", run / "checkpoints")
    with pytest.raises(RunError, match="no checkpoint in .* can be used: .*belongs to another run"):
        robustplug.train(resume=run)
    with pytest.raises(RunError, match="no checkpoint in .* can be used: .*belongs to another run"):
        robustplug.evaluate(run)


def edit(folder: Path, old: str, new: str) -> str:
    path = folder / "recipe.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return text


def test_an_edited_recipe_changes_nothing_and_is_named(run: Path) -> None:
    text = edit(run, "samples = 16", "samples = 32")
    found = robustplug.evaluate(run, reporter=(heard := Heard()))
    assert found.samples == 16
    assert sum("recipe.toml was edited after the run started" in line for line in heard.lines) == 1
    assert robustplug.evaluate(run, overrides=["evaluate.samples=8"], reporter=Silent()).samples == 8
    with pytest.raises(RunError, match="edited after the run started.*put it back.*start a new run"):
        robustplug.train(resume=run)
    (run / "recipe.toml").write_text("# a remark\n" + text)
    robustplug.evaluate(run, samples=4, reporter=(heard := Heard()))
    assert "was edited" not in heard.text, "the recipe is the same"
    (run / "recipe.toml").write_text("not TOML")
    robustplug.evaluate(run, samples=4, reporter=(heard := Heard()))
    assert "was edited" in heard.text


def test_a_missing_recipe_is_written_again(run: Path) -> None:
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").unlink()
    robustplug.evaluate(run, samples=4, reporter=(heard := Heard()))
    assert "recipe.toml is missing: the recipe in manifest.json is used" in heard.text
    with pytest.raises(RunError, match="already contains a run"):
        robustplug.train(RECIPE, out=run)
    _, said = resume(run)
    assert "recipe.toml is missing" in said
    assert (run / "recipe.toml").read_text() == text


@pytest.mark.parametrize("harm", [Path.unlink, flip, lambda path: path.write_text("{}")])
def test_a_missing_or_damaged_manifest_is_made_anew_from_the_checkpoints(
    harm: Callable[[Path], None], run: Path, top: Path
) -> None:
    number = read_json(run / "manifest.json")["run"]
    harm(run / "manifest.json")
    _, said = resume(run)
    assert "manifest.json" in said
    assert read_json(run / "manifest.json")["run"] == number
    assert outcome(run) == outcome(top / "whole")


def test_the_history_does_not_come_from_the_metrics(run: Path, top: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"epoch": 1', b'"epoch": 7') + b"\xff\xfe")
    (run / "checkpoints" / "history.jsonl").unlink()
    _, said = resume(run)
    assert "metrics.jsonl was damaged or changed: it is kept as" in said
    assert "history.jsonl lacks the reports of epochs 1, 2, 3" in said
    assert outcome(run) == outcome(top / "whole")


def test_a_run_without_checkpoints_says_that_it_starts_anew(run: Path, top: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    _, said = resume(run)
    assert "holds no checkpoint: its training starts anew" in said
    assert outcome(run) == outcome(top / "whole")


def test_a_recipe_alone_is_no_run_to_resume(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints", tmp_path / "proj" / "data")
    shutil.copy(run / "recipe.toml", tmp_path / "proj")
    with pytest.raises(RunError, match=r"is no run that can be resumed: .*neither manifest\.json"):
        robustplug.train(resume=tmp_path / "proj")


def test_checkpoints_behind_a_link_are_left_alone(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    with pytest.raises(RunError, match="checkpoints is a link, and nothing is written or deleted behind it"):
        robustplug.train(resume=run)
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before


@pytest.mark.slow
def test_other_writers_leave_files_of_somebody_else(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "figures").mkdir(parents=True)
    files = [
        folder / name for name in ("evaluation.json", "audit.json", "index.html", "examples.safetensors")
    ]
    for path in files:
        path.write_text('{"precious": 1}')
    with pytest.raises(RunError, match=r"evaluation\.json exists and is no result of robustplug"):
        robustplug.evaluate(whole, samples=4, out=folder)
    with pytest.raises(RunError, match=r"audit\.json exists and is no result of robustplug"):
        robustplug.audit(whole, samples=4, out=folder)
    with pytest.raises(RunError, match=r"index\.html exists and is no page of robustplug"):
        robustplug.run.report(whole, out=folder, compute=False)
    (folder / "evaluation.json").rename(folder / "kept.json")
    with pytest.raises(RunError, match=r"examples\.safetensors holds no examples of robustplug"):
        robustplug.evaluate(whole, samples=4, out=folder, keep_examples=True)
    assert all(path.read_text() == '{"precious": 1}' for path in [*files[1:], folder / "kept.json"])
    (folder / "index.html").unlink()
    with pytest.raises(RunError, match="figures exists and is no page of robustplug"):
        robustplug.run.report(whole, out=folder, compute=False)
    (folder / "figures").rmdir()
    for _ in range(2):
        robustplug.evaluate(whole, samples=4, out=folder, reporter=Silent())
        robustplug.run.report(whole, out=folder, compute=False)


def test_a_damaged_evaluation_of_a_run_is_put_aside(whole: Path) -> None:
    folder = whole / "evaluations"
    folder.mkdir()
    (folder / "evaluation.json").write_text("{")
    robustplug.evaluate(whole, samples=4, out=folder, reporter=Silent())
    assert (folder / "evaluation-damaged.json").read_text() == "{"


def test_changed_weights_are_named(whole: Path) -> None:
    path = whole / "model.safetensors"
    more: dict[str, Any] = {"task": "digits", "architecture": {"use": "small-cnn", "width": 4, "hidden": 16}}
    assert robustplug.evaluate(path, samples=4, attacks=[], reporter=Silent(), **more).samples == 4
    info = robustplug.api.open_run(whole).task.info
    open_model(whole, info)
    flip(path)
    with pytest.raises(RunError, match=r"model\.safetensors was changed after the run wrote it"):
        robustplug.evaluate(path, samples=4, **more)
    with pytest.raises(Refused, match="was changed after the run wrote it"):
        open_model(whole, info)
    assert robustplug.evaluate(whole, samples=4, reporter=Silent()).samples == 4, "checkpoints are sound"


def test_a_newest_checkpoint_that_is_gone_is_named(whole: Path) -> None:
    newest = max(path.stem for path in (whole / "checkpoints").glob("epoch-*.json"))
    for path in (whole / "checkpoints").glob(f"{newest}.*"):
        path.unlink()
    heard = Heard()
    robustplug.evaluate(whole, samples=4, reporter=heard)
    assert f"{newest}.json does not exist" in heard.text
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(train, "selection_score", lambda select, epoch, validation: 0.0)
        robustplug.train(resume=whole, epochs=RECIPE["train"]["epochs"] + 1, reporter=(heard := Heard()))
    assert f"{newest}.json does not exist" in heard.text
    robustplug.evaluate(whole, samples=4, reporter=(heard := Heard()))
    assert newest not in heard.text, "the extended run has another one"


def test_what_cannot_be_written_is_named(run: Path) -> None:
    (run / "result.json").mkdir()
    with pytest.raises(RunError, match=r"cannot write the result in .*result\.json"):
        robustplug.train(resume=run, reporter=Silent())


@pytest.mark.parametrize("what", ["moved", "removed", "made anew"])
def test_a_folder_that_goes_away_stops_the_run(
    what: str, run: Path, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch, away = Training._close_epoch, tmp_path / "away"

    def going(self: Training, session: Session, began: float) -> None:
        if what == "removed":
            shutil.rmtree(run)
        else:
            run.rename(away)
        if what == "made anew":
            shutil.copytree(top / "other", run)
        epoch(self, session, began)

    monkeypatch.setattr(Training, "_close_epoch", going)
    why = "was removed" if what == "removed" else f"was moved to {away}"
    with pytest.raises(RunError, match=why) as caught:
        robustplug.train(resume=run)
    if what == "removed":
        assert not run.exists()
        return
    assert f"Its last checkpoint is {name_of(3, 0)}" in str(caught.value)
    assert f"--resume {away}" in str(caught.value)
    if what == "made anew":
        there, here = top / "other", run
        files = [path.relative_to(there) for path in there.rglob("*") if path.is_file()]
        assert sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file()) == sorted(files)
        assert all((here / path).read_bytes() == (there / path).read_bytes() for path in files)
    monkeypatch.setattr(Training, "_close_epoch", epoch)
    resume(away)
    assert outcome(away) == outcome(top / "whole")


def test_a_run_keeps_its_number_of_threads(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    epoch = Training._epoch

    def note(self: Training, session: Session, stop: Any) -> None:
        seen.append(torch.get_num_threads())
        epoch(self, session, stop)

    monkeypatch.setattr(Training, "_epoch", note)
    monkeypatch.setattr("robustplug.devices.precision.TINY", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        resume(run)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert seen == [read_json(run / "manifest.json")["threads"]]
