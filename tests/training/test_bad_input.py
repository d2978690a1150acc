"""What users get wrong stops with one message that says what, where, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

import robustplug
from robustplug.core.reporting import Silent
from robustplug.core.types import TaskInfo
from robustplug.errors import Refused, RunError
from robustplug.plugin.component import Component, NoOptions
from robustplug.recipe.errors import RecipeError
from robustplug.runs.checkpoint import load, load_newest

from .runs import newest, offered, outcome, tiny
from .test_resume import Killed, kill_after_save


def unfinished(recipe: dict[str, Any], out: Path | None = None) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(recipe, out=out)


@pytest.mark.parametrize("method", ["erm", "trades"])
def test_a_loss_that_is_no_number_names_its_batch_and_what_is_kept(method: str, tmp_path: Path) -> None:
    recipe = tiny(method, optimizer={"lr": 1e30}, train={"checkpoint_batches": 1})
    with pytest.raises(RunError) as caught:
        robustplug.train(recipe, out=tmp_path / "run")
    text = str(caught.value)
    kept = newest(tmp_path / "run")
    epoch, batch = (int(part) for part in kept.split("-")[1::2])
    assert f"at epoch {epoch + 1}, batch {batch + 1} of 4" in text
    assert str(tmp_path / "run" / "checkpoints" / kept) in text
    assert "samples " in text
    assert "clip_grad_norm" in text
    tensors = load(tmp_path / "run" / "checkpoints", kept).tensors
    assert all(value.isfinite().all() for key, value in tensors.items() if key.startswith("model/"))


def test_a_loss_that_is_no_number_before_any_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"epoch 1, batch \d of 4 .*No checkpoint was written yet"):
        robustplug.train(tiny(optimizer={"lr": 1e30}), out=tmp_path / "run")


def test_a_loss_that_is_no_number_in_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    recipe = tiny(optimizer={"lr": 1e30}, train={"batch_size": 67})
    with pytest.raises(RunError, match="epoch 1, batch 2 of 2"):
        robustplug.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("below", ["", "run", "runs/run"])
def test_a_run_folder_that_cannot_be_made(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write the folder .*--out"):
        robustplug.train(tiny(), out=tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    robustplug.train(tiny(), out=tmp_path / "run")
    before = outcome(tmp_path / "run")
    with pytest.raises(RunError, match="already contains a run.*--resume.*--out"):
        robustplug.train(tiny(seed=1), out=tmp_path / "run")
    assert outcome(tmp_path / "run") == before


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    unfinished(tiny(), tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(RunError, match="another process is using"),
    ):
        robustplug.train(resume=tmp_path / "run")
    (tmp_path / "new").mkdir()
    with (
        FileLock(tmp_path / "new" / ".lock"),
        pytest.raises(RunError, match="another process is using"),
    ):
        robustplug.train(tiny(), out=tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]
    robustplug.train(resume=tmp_path / "run")


def test_the_lock_is_let_go_when_a_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the loss is"):
        robustplug.train(tiny(optimizer={"lr": 1e30}), out=tmp_path / "run")
    with FileLock(tmp_path / "run" / ".lock", blocking=False):
        pass


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    robustplug.train(tiny(), out=tmp_path / "run")
    with pytest.raises(RunError, match="is finished.*robustplug evaluate"):
        robustplug.train(resume=tmp_path / "run")


def test_a_changed_recipe_is_not_resumed_and_every_difference_is_listed(tmp_path: Path) -> None:
    unfinished(tiny("pgd-at"), tmp_path / "run")
    changed = tiny("pgd-at", seed=7, method={"perturbation": {"steps": 5}}, train={"epochs": 9})
    with pytest.raises(RunError) as caught:
        robustplug.train(changed, out=tmp_path / "run", resume=True)
    assert str(caught.value).splitlines()[1:] == [
        "  method.perturbation.steps: the run has 2, the recipe 5",
        "  seed: the run has 0, the recipe 7",
        "  train.epochs: the run has 2, the recipe 9",
    ]
    with pytest.raises(RunError, match="leave out --set"):
        robustplug.train(resume=tmp_path / "run", overrides=["train.epochs=9"])


def test_the_evaluation_of_an_unfinished_run_says_so(tmp_path: Path) -> None:
    class Heard(Silent):
        said = ""

        def warn(self, message: str) -> None:
            self.said += message

    unfinished(tiny(), tmp_path / "run")
    robustplug.evaluate(tmp_path / "run", samples=4, reporter=(heard := Heard()))
    assert "is not finished: its checkpoint after" in heard.said
    assert f"robustplug train --resume {tmp_path / 'run'}" in heard.said


def test_what_a_run_chose_by_itself_is_no_difference(tmp_path: Path) -> None:
    recipe = tiny(train={"precision": "auto"})
    del recipe["model"]
    unfinished(recipe, tmp_path / "run")
    assert robustplug.train(recipe, out=tmp_path / "run", resume=True).history


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_finished_runs_get_numbered_folders_and_unfinished_ones_ask_for_resume() -> None:
    assert robustplug.train(tiny()).folder == Path("runs/tiny")
    assert robustplug.train(tiny()).folder == Path("runs/tiny-2")
    unfinished(tiny())
    with pytest.raises(
        RunError, match=r"runs/tiny-3 contains an unfinished run.*--resume.*--out runs/tiny-4"
    ):
        robustplug.train(tiny())
    assert robustplug.train(tiny(), resume=True).folder == Path("runs/tiny-3")
    assert robustplug.train(tiny()).folder == Path("runs/tiny-4")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tiny", "tiny-2", "tiny-3", "tiny-4"]


@pytest.mark.usefixtures("here")
def test_nothing_to_resume() -> None:
    with pytest.raises(RunError, match=r"no run to resume at runs/tiny.*leave out --resume"):
        robustplug.train(tiny(), resume=True)
    with pytest.raises(RunError, match="is not a run folder"):
        robustplug.train(resume="nowhere")
    with pytest.raises(RunError, match="no run to resume is given"):
        robustplug.train(resume=True)
    with pytest.raises(RunError, match="no recipe is given"):
        robustplug.train()


def too_narrow(options: NoOptions, *, info: TaskInfo) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def wrong_input(options: NoOptions, *, info: TaskInfo) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 10))


class Pair(nn.Module):
    def __init__(self, options: NoOptions, *, info: TaskInfo) -> None:
        super().__init__()
        self.inner = too_narrow(options, info=info)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("too_narrow", r"outputs of shape \(2, 9\) for 2 samples; the task has 10 classes"),
        ("wrong_input", r"cannot take inputs of shape \(1, 8, 8\)"),
        ("Pair", "outputs of shape tuple"),
        ("not_there", "not_there"),
    ],
)
def test_a_model_that_does_not_fit_the_task(attribute: str, why: str, tmp_path: Path) -> None:
    recipe = tiny()
    recipe["model"] = {"use": "misfit"}
    component = Component("misfit", f"{__name__}:{attribute}")
    with offered("model", component), pytest.raises(RecipeError, match=why) as caught:
        robustplug.train(recipe, out=tmp_path / "run")
    assert [problem.key for problem in caught.value.problems] == ["model"]
    assert not (tmp_path / "run").exists()


def test_a_model_that_the_images_are_too_small_for(tmp_path: Path) -> None:
    recipe = tiny()
    recipe["model"] = {"use": "vgg16"}
    with pytest.raises(RecipeError, match="model"):
        robustplug.train(recipe, out=tmp_path / "run")


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match='"cuda".*use "auto" or "cpu"'):
        robustplug.train(tiny(train={"device": "cuda"}), out=tmp_path / "run")
    with pytest.raises(RunError, match='"cuda".*use "auto" or "cpu"'):
        robustplug.evaluate(nn.Linear(1, 1), task="digits", device="cuda")


@pytest.mark.parametrize(
    ("tables", "key", "why"),
    [
        ({"validate": {"split": "test"}}, "validate.split", "selected on the validation split only"),
        ({"method": {"vicinity": {"eps": -0.1}}}, "method.vicinity.eps", "0"),
        ({"train": {"epochs": 0}}, "train.epochs", "1"),
        ({"train": {"precision": "half"}}, "train.precision", "bfloat16"),
        ({"method": {"use": "pgd-att"}}, "method.use", 'Did you mean "pgd-at"'),
        ({"name": "../up"}, "name", "cannot be a folder name"),
    ],
)
def test_an_option_that_is_wrong(tables: dict[str, Any], key: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=why) as caught:
        robustplug.train(tiny(**tables), out=tmp_path / "run")
    assert [problem.key for problem in caught.value.problems] == [key]
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there(tmp_path: Path) -> None:
    recipe = tiny()
    recipe["task"] = {"use": "mnist", "root": str(tmp_path / "nowhere")}
    with pytest.raises(RecipeError, match="nowhere") as caught:
        robustplug.train(recipe, out=tmp_path / "run")
    assert [problem.key for problem in caught.value.problems] == ["task"]


def test_more_held_out_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leaves none for training"):
        robustplug.train(tiny(task={"test": 1797}), out=tmp_path / "run")


def test_a_run_without_a_whole_checkpoint_cannot_be_evaluated(tmp_path: Path) -> None:
    robustplug.train(tiny(), out=tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint in .* can be used"):
        load_newest(tmp_path / "run" / "checkpoints")
    with pytest.raises(RunError, match=r"no checkpoint in .*evaluate .*model\.safetensors --task"):
        robustplug.evaluate(tmp_path / "run")
    with pytest.raises(RunError, match="is not a run folder"):
        robustplug.evaluate(tmp_path / "nowhere")


class Picky:
    """Refuse what it is given."""

    def __init__(self, options: NoOptions) -> None:
        pass

    def __call__(self, step: Any, view: Any, vicinity: Any) -> Any:
        raise Refused("this data is not for me")

    def cost(self, target: Any) -> Any:
        return target


def test_a_component_that_refuses_while_training_stops_the_run_with_its_reason(tmp_path: Path) -> None:
    with (
        offered("perturbation", Component("picky", f"{__name__}:Picky")),
        pytest.raises(RunError, match=r"this data is not for me\. No checkpoint was written yet\."),
    ):
        robustplug.train(tiny(method={"perturbation": {"use": "picky"}}), out=tmp_path / "run")
