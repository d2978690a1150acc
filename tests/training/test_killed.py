"""Real processes: kill -9, Ctrl-C and SIGTERM, then --resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import robustplug
from robustplug.cli import main
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import write_recipe

from .runs import digest, newest, outcome, tiny

TASK = {"validation": 60, "test": 1200}
LONG = tiny("pgd-at", task=TASK, train={"epochs": 3, "batch_size": 16}, validate={"samples": 8})
ROOT = Path(robustplug.__file__).parents[1]


def environment() -> dict[str, str]:
    """Return the environment of a process that finds what this one finds, on one thread as the tests are."""
    path = os.pathsep.join([*(str(Path(entry).resolve()) for entry in sys.path if entry), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def launch(folder: Path, *settings: str) -> subprocess.Popen[str]:
    recipe = folder.with_suffix(".toml")
    recipe.write_text(write_recipe(recipe_from_mapping(LONG)))
    command = [sys.executable, "-m", "robustplug", "train", "--recipe", str(recipe), "--out", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.Popen(
        command,
        env=environment(),
        cwd=folder.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the run ended too early: {process.communicate()}")
        time.sleep(0.005)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stop one run by each signal, while an undisturbed one trains here; return their folders."""
    top = tmp_path_factory.mktemp("runs")
    folders = {name: top / name for name in ("whole", "killed", "interrupted")}
    killed = launch(folders["killed"], "train.checkpoint_batches=1")
    robustplug.train(LONG, out=folders["whole"])
    wait_for(lambda: any((folders["killed"] / "checkpoints").glob("*.json")), killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    # Started last: it must not end while this process is busy.
    interrupted = launch(folders["interrupted"])
    wait_for(lambda: any((folders["interrupted"] / "checkpoints").glob("*.json")), interrupted)
    # The first epoch is saved; a moment later the second one has begun, and is far from its end.
    time.sleep(0.05)
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, errors
    (top / "errors").write_text(errors)
    return folders


def resume(folder: Path) -> None:
    done = CliRunner().invoke(main, ["train", "--resume", str(folder), "--quiet"])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(runs: dict[str, Path]) -> None:
    folder = runs["killed"]
    assert not (folder / "result.json").exists()
    resume(folder)
    assert digest(folder / "model.safetensors") == digest(runs["whole"] / "model.safetensors")
    left, whole = outcome(folder), outcome(runs["whole"])
    assert left["checkpoint"] == whole["checkpoint"]
    assert left["metrics"] == whole["metrics"]
    assert left["result"]["attacks"] == whole["result"]["attacks"]


@pytest.mark.slow
def test_ctrl_c_saves_within_the_epoch_and_says_how_to_go_on(runs: dict[str, Path]) -> None:
    folder = runs["interrupted"]
    errors = (folder.parent / "errors").read_text()
    assert f"resume with: robustplug train --resume {folder}" in "".join(errors.splitlines())
    assert "Traceback" not in errors
    name = newest(folder)
    assert not name.endswith("batch-0000000"), "the checkpoint lies within an epoch"
    resume(folder)
    assert outcome(folder) == outcome(runs["whole"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_at_the_next_batch(number: signal.Signals, code: int, tmp_path: Path) -> None:
    from robustplug.errors import Interrupted
    from robustplug.training.loop import Loop

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    update = Loop._update

    def update_and_stop(self: Loop, *rest: object) -> None:
        update(self, *rest)  # type: ignore[arg-type]
        if self.update == 6:
            os.kill(os.getpid(), number)

    robustplug.train(tiny(), out=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Interrupted) as caught:
        monkeypatch.setattr(Loop, "_update", update_and_stop)
        robustplug.train(tiny(), out=tmp_path / "run")
    assert caught.value.exit_code == code
    assert newest(tmp_path / "run") == "epoch-00001-batch-0000002"
    assert {each: signal.getsignal(each) for each in handlers} == handlers
    robustplug.train(resume=tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_signal_in_the_last_batch_of_an_epoch_saves_once(tmp_path: Path) -> None:
    from robustplug.errors import Interrupted
    from robustplug.training.train import Training

    save, names = Training._save, []

    def save_and_note(self: Training, session: object) -> None:
        save(self, session)  # type: ignore[arg-type]
        names.append(newest(self.folder))
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Interrupted):
        monkeypatch.setattr(Training, "_save", save_and_note)
        robustplug.train(tiny(), out=tmp_path / "run")
    assert names == ["epoch-00001-batch-0000000"]
    robustplug.train(tiny(), out=tmp_path / "whole")
    robustplug.train(resume=tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
