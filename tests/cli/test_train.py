"""train and evaluate, on a run of a few seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from robustplug.builtin.perturbations.pgd import Pgd
from robustplug.errors import Refused

from .conftest import Invoke, run_cli

TINY = [
    "task.validation=1400",
    "task.test=300",
    "model.width=2",
    "train.epochs=1",
    "train.device=cpu",
    "method.perturbation.steps=1",
    "validate.samples=20",
    "validate.attack.steps=1",
    "evaluate.samples=40",
    "evaluate.attack.0.steps=2",
    "evaluate.attack.0.restarts=1",
    "evaluate.attack.1.steps=1",
]
SETS = [argument for override in TINY for argument in ("--set", override)]
FOLDER = Path("runs") / "cat-digits"


@dataclass(frozen=True)
class Run:
    root: Path
    output: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Train once for all tests of this file, and leave them in the folder where that was done."""
    root = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("COLUMNS", "200")
        result = run_cli("train", "--recipe", "cat", *SETS)
        assert result.exit_code == 0, result.output
        yield Run(root, result.output)


def accuracies(output: str) -> list[str]:
    """Return the accuracy column of a printed table."""
    rows = [line.split("│") for line in output.splitlines() if "│" in line]
    return [row[2].split()[0] for row in rows]


def stored(folder: Path) -> list[str]:
    return [f"{row['accuracy']:.1%}" for row in json.loads((folder / "result.json").read_text())["attacks"]]


def test_training_ends_with_the_result(run: Run) -> None:
    lines = run.output.splitlines()
    assert f"Everything is in {FOLDER}" in lines[-1]
    assert all(f" {name} " in run.output for name in ("clean", "pgd (steps=2)", "pgd (steps=1, loss=margin)"))
    assert accuracies(run.output) == stored(run.root / FOLDER)
    assert len(stored(run.root / FOLDER)) == 3
    assert "epoch 1/1" in run.output
    assert "40 samples" in run.output


def test_training_leaves_a_run_folder(run: Run) -> None:
    folder = run.root / FOLDER
    files = ["recipe.toml", "environment.json", "metrics.jsonl", "result.json", "model.safetensors"]
    assert all((folder / file).is_file() for file in files)
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["epoch"] == 0
    assert list((folder / "checkpoints").glob("*.safetensors"))


def test_the_stored_recipe_is_a_recipe(run: Run, cli: Invoke) -> None:
    assert cli("validate", FOLDER / "recipe.toml").exit_code == 0


def test_a_second_run_has_its_own_folder_and_the_same_result(run: Run, cli: Invoke) -> None:
    before = (FOLDER / "result.json").read_bytes()
    result = cli("train", "--recipe", "cat", "--quiet", *SETS)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].endswith("cat-digits-2")
    assert "epoch 1/1" not in result.output
    assert accuracies(result.output) == accuracies(run.output)
    assert (FOLDER / "result.json").read_bytes() == before


def test_a_folder_that_holds_a_run_is_not_trained_in(run: Run, cli: Invoke) -> None:
    before = (FOLDER / "result.json").read_bytes()
    result = cli("train", "--recipe", "cat", *SETS, "--out", FOLDER)
    assert result.exit_code == 2
    assert "--resume" in result.output
    assert (FOLDER / "result.json").read_bytes() == before


def test_a_finished_run_is_not_resumed(run: Run, cli: Invoke) -> None:
    for arguments in (["--resume", FOLDER], ["--recipe", "cat", *SETS, "--resume"]):
        result = cli("train", *arguments)
        assert result.exit_code == 2
        assert "is finished" in result.output
        assert "robustplug evaluate" in result.output


def test_a_run_in_which_no_attack_could_be_run_ends_with_one_sentence(
    run: Run, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise Refused("there is nothing to climb")

    monkeypatch.setattr(Pgd, "__call__", refused)
    sets = [text for text in SETS if "method.perturbation" not in text and "validate.attack" not in text]
    sets = [text for at, text in enumerate(sets) if sets[at : at + 2] != ["--set", "--set"]]
    more = ("--set", 'validate.attack={use="none"}', "--out", "no-attack")
    result = cli("train", "--recipe", "erm", *sets, *more)
    assert result.exit_code == 2
    assert (
        result.output.strip().splitlines()[-1]
        == "no attack states a number: pgd (steps=2): there is nothing to climb"
    )
    # The training was not in vain.
    assert (Path("no-attack") / "model.safetensors").is_file()
    rows = json.loads((Path("no-attack") / "result.json").read_text())["attacks"]
    assert [bool(row["skipped"]) for row in rows] == [False, True, True]


def test_evaluate_repeats_the_result(run: Run, cli: Invoke, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    target = tmp_path / "again.json"
    result = cli("evaluate", FOLDER, "--device", "cpu", "--json", target)
    assert result.exit_code == 0
    assert accuracies(result.output) == accuracies(run.output)
    again, first = json.loads(target.read_text()), json.loads((FOLDER / "result.json").read_text())
    assert [row["right"] for row in again["attacks"]] == [row["right"] for row in first["attacks"]]
    after = {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.parent.name != "evaluations"} == before


def test_evaluate_takes_other_settings_of_the_evaluation_only(run: Run, cli: Invoke) -> None:
    result = cli("evaluate", FOLDER, "--device", "cpu", "--set", "evaluate.samples=10", "--quiet")
    assert result.exit_code == 0
    assert "10 samples" in result.output
    result = cli("evaluate", FOLDER, "--set", "train.epochs=2", "--set", "method.eta=1")
    assert result.exit_code == 2
    assert "train.epochs" in result.output
    assert "method.eta" in result.output


def test_evaluate_where_there_is_no_run(run: Run, cli: Invoke) -> None:
    result = cli("evaluate", "runs/absent")
    assert result.exit_code == 2
    assert "runs/absent is not a run folder" in result.output
    assert cli("evaluate").exit_code == 2


def test_a_result_that_cannot_be_written_is_one_message(run: Run, cli: Invoke) -> None:
    Path("blocked").write_text("a file, not a folder")
    result = cli("evaluate", FOLDER, "--device", "cpu", "--json", "blocked/again.json", "--quiet")
    assert result.exit_code == 2
    assert "cannot write" in result.output


WRONG = {
    "nothing": ([], "Give a recipe"),
    "unknown recipe": (["--recipe", "catt"], 'did you mean "cat"?'),
    "positional": (["cat"], "unexpected extra argument"),
    "unknown option": (["--recipe", "cat", "--sett", "a=1"], "No such option"),
    "unknown key": (["--recipe", "cat", "--set", "method.etta=1"], '"eta"'),
    "unknown component": (["--recipe", "cat", "--set", "method.use=tradess"], '"trades"'),
    "out of range": (["--recipe", "cat", "--set", "train.epochs=0"], "--set train.epochs=0: train.epochs"),
    "no number": (["--recipe", "cat", "--set", "optimizer.lr=fast"], "optimizer.lr"),
    "no override": (["--recipe", "cat", "--set", "fast"], "key=value"),
    "several": (["--recipe", "cat", "--set", "seed=-1", "--set", "train.epochs=x"], "train.epochs"),
    "options that do not go together": (
        [
            "--recipe",
            "cat",
            "--set",
            "method.perturbation.start=zero",
            "--set",
            "method.perturbation.restarts=2",
        ],
        "restarts",
    ),
    "resume of nothing": (["--resume"], "--resume"),
    "resume of an absent folder": (["--resume", "runs/absent"], "is not a run folder"),
    "resume of a recipe without a run": (["--recipe", "cat", "--resume"], "no run to resume"),
    "a folder": (["--recipe", "."], "is a folder"),
    "a recipe without its option": (["cat"], "give the recipe with --recipe"),
    "model that does not fit": (
        ["--recipe", "cat", "--set", "model.use=torchvision", "--set", "model.name=no_such_net"],
        "model",
    ),
}


@pytest.mark.parametrize(("arguments", "why"), WRONG.values(), ids=WRONG)
def test_mistakes_end_with_a_message_and_exit_code_2(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("train", *arguments)
    assert result.exit_code == 2, result.output
    assert why in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_toml_is_one_message(cli: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("schema = 1\n[task\n")
    result = cli("train", "--recipe", file)
    assert result.exit_code == 2
    assert f"{file}:2" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
def test_a_device_that_is_not_there_is_one_message(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("train", "--recipe", "cat", "--set", "train.device=cuda")
    assert result.exit_code == 2
    assert "cuda" in result.output
