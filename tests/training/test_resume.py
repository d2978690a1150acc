"""A run that dies at any batch and goes on leaves what an undisturbed run leaves, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.runs import checkpoint
from robustplug.runs.folder import write_atomic
from robustplug.training import train
from robustplug.training.session import Session
from robustplug.training.train import Training

from .runs import BATCHES, merged, newest, outcome, tiny

SCHEDULE = {"use": "warm-up", "epochs": 1, "then": {"use": "cosine"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "averaged weights": {"train": {"ema_decay": 0.9}},
    "a schedule that warms up": {"schedule": SCHEDULE},
    "augmentation": {"task": {"augment": True}},
    "adamw and clipping": {"optimizer": {"use": "adamw", "lr": 0.01}, "train": {"clip_grad_norm": 0.1}},
    "a schedule and an optimizer of torch": {
        "optimizer": {"use": "torch:NAdam", "lr": 0.01},
        "schedule": {"use": "torch:OneCycleLR", "pct_start": 0.4},
    },
    "a cyclic schedule after a warm-up": {
        "schedule": {
            "use": "warm-up",
            "epochs": 1,
            "then": {"use": "torch:CyclicLR", "base_lr": 0.001, "step_size_up": 3},
        }
    },
    "transforms of torchvision": {
        "train": {
            "augment": [
                {"use": "torchvision:RandomCrop", "size": 8, "padding": 1},
                {"use": "torchvision:ColorJitter", "brightness": 0.3},
                {"use": "torchvision:RandomErasing"},
            ]
        }
    },
    "balanced sampling": {"train": {"sampling": "balanced"}},
    "class weights and cutmix": {
        "train": {"class_weights": "balanced"},
        "method": {"vicinity": {"use": "cutmix"}},
    },
    "no selection": {"train": {"select": "last", "channels_last": False}},
}
EVERYTHING: dict[str, dict[str, Any]] = {
    "train": {
        "ema_decay": 0.9,
        "clip_grad_norm": 1.0,
        "sampling": "balanced",
        "augment": [{"use": "torchvision:RandomErasing"}],
    },
    "task": {"augment": True},
    "schedule": {"use": "torch:OneCycleLR"},
    "validate": {"every": 2},
}
HALVES = tiny("pgd-at", train={"checkpoint_batches": 2})


class Killed(BaseException):
    """Stands for kill -9: nothing in the engine may catch it."""


def kill_after_save(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let training die right after its count-th checkpoint."""
    save, saved = Training._save, []

    def save_and_die(self: Training, session: Session) -> None:
        save(self, session)
        saved.append(session.name)
        if len(saved) == count:
            raise Killed

    monkeypatch.setattr(Training, "_save", save_and_die)


def check_resume(recipe: dict[str, Any], tmp_path: Path, kills: tuple[int, ...]) -> None:
    """Compare an undisturbed run with one that dies after several counts of checkpoints."""
    recipe = merged(recipe, {"train": {"checkpoint_batches": 1}})
    robustplug.train(recipe, out=tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    for count in kills:
        folder = tmp_path / f"killed-{count}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_after_save(monkeypatch, count)
            with pytest.raises(Killed):
                robustplug.train(recipe, out=folder)
        epoch, batch = divmod(count, BATCHES)
        assert newest(folder) == f"epoch-{epoch:05d}-batch-{batch:07d}"
        robustplug.train(resume=folder)
        assert outcome(folder) == expected, f"killed after checkpoint {count}"


# One of each kind of state: none, memories, what is left of a batch, learned labels, two BatchNorms. The
# conformance kit resumes every method, but not from files.
@pytest.mark.table(2)
@pytest.mark.parametrize("method", ["erm", "cat", "free-at", "sprout", "robmask"])
def test_methods_resume_within_an_epoch_between_epochs_and_before_the_evaluation(
    method: str, tmp_path: Path
) -> None:
    check_resume(tiny(method), tmp_path, (2, 4, 8))


@pytest.mark.table
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_resumes(variant: str, tmp_path: Path) -> None:
    check_resume(tiny("pgd-at", **VARIANTS[variant]), tmp_path, (3, 6))


def test_resume_at_every_batch(tmp_path: Path) -> None:
    check_resume(tiny("cat", **EVERYTHING), tmp_path, tuple(range(1, 2 * BATCHES + 1)))


def test_a_run_may_die_again_and_again(tmp_path: Path) -> None:
    recipe = tiny("free-at", train={"checkpoint_batches": 1})
    robustplug.train(recipe, out=tmp_path / "whole")
    for attempt in range(4):
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
            kill_after_save(monkeypatch, 2)
            robustplug.train(recipe, out=tmp_path / "killed", resume=attempt > 0)
    robustplug.train(recipe, out=tmp_path / "killed", resume=True)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(robustplug.train(HALVES, out=tmp_path_factory.mktemp("runs") / "whole").folder)


@pytest.mark.parametrize("write", [0, 1, 2, 3, 7])
def test_dying_while_a_checkpoint_is_written(write: int, halves: dict[str, Any], tmp_path: Path) -> None:
    writes, real = [], write_atomic

    def die(path: Path, data: bytes) -> None:
        writes.append(path)
        if len(writes) == write + 1:
            path.with_name(f".{path.name}.1.tmp").write_bytes(data[: len(data) // 2])
            raise Killed
        real(path, data)

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr(checkpoint, "write_atomic", die)
        robustplug.train(HALVES, out=tmp_path / "killed")
    robustplug.train(resume=tmp_path / "killed")
    assert outcome(tmp_path / "killed") == halves


@pytest.mark.parametrize("last", ["model.safetensors", "result.json"])
def test_dying_while_the_result_is_written(last: str, tmp_path: Path) -> None:
    recipe = tiny("trades")
    robustplug.train(recipe, out=tmp_path / "whole")
    real = write_atomic

    def die(path: Path, data: bytes) -> None:
        if path.name == last:
            raise Killed
        real(path, data)

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        monkeypatch.setattr("robustplug.training.store.write_atomic", die)
        monkeypatch.setattr("robustplug.runs.folder.write_atomic", die)
        robustplug.train(recipe, out=tmp_path / "killed")
    assert not (tmp_path / "killed" / last).exists()
    robustplug.train(resume=tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_run_that_stopped_for_a_collapse_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "collapsed", lambda history: len(history) == 1)
    recipe = tiny(train={"stop_on_collapse": True})
    whole = robustplug.train(recipe, out=tmp_path / "whole")
    assert len(whole.history) == 1
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after_save(patch, 1)
        robustplug.train(recipe, out=tmp_path / "killed")
    robustplug.train(resume=tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_the_wall_time_of_all_sessions_counts(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        kill_after_save(monkeypatch, 1)
        robustplug.train(tiny(), out=tmp_path / "run")
    saved = checkpoint.load(tmp_path / "run" / "checkpoints", newest(tmp_path / "run")).meta["seconds"]
    assert saved > 0
    again = robustplug.train(resume=tmp_path / "run")
    assert again.result.meta["training"]["seconds"] > saved


def test_a_kill_before_the_last_pruning_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = merged(tiny("erm"), {"train": {"epochs": 4}})
    robustplug.train(recipe, out=tmp_path / "whole")
    prune = checkpoint.prune

    def prune_or_die(folder: Path, written: list[str], keep: set[str]) -> None:
        if written[-1].startswith("epoch-00004"):
            raise Killed
        prune(folder, written, keep)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "prune", prune_or_die)
        robustplug.train(recipe, out=tmp_path / "killed")
    robustplug.train(resume=tmp_path / "killed")
    left, whole = (tmp_path / name / "checkpoints" for name in ("killed", "whole"))
    assert sorted(path.name for path in left.iterdir()) == sorted(path.name for path in whole.iterdir())
