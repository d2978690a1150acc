"""robustplug study, on runs of a fraction of a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robustplug.run
from robustplug.core.types import AttackResult, Result
from robustplug.errors import RunError
from robustplug.report.board import RunReporter
from robustplug.runs.lock import locked
from robustplug.studies import outcome
from robustplug.studies.outcome import Outcome, Run, rows_of
from robustplug.studies.study import spread_of

from .conftest import Invoke, run_cli

TINY = """
[set]
train = {{ epochs = {epochs}, device = "cpu", batch_size = 32 }}
task = {{ validation = 1400, test = 300 }}
model.width = 2
"method.perturbation.steps" = 1
validate.samples = 20
validate.attack.steps = 1
evaluate.samples = 40
"evaluate.attack" = [{{ use = "pgd", steps = 1 }}, {{ use = "pgd", steps = 2 }}]
"""
AXIS = '\n[[axis]]\nkey = "optimizer.lr"\nvalues = [0.05, 0.2]\n'
BROKEN = """
[[axis]]
name = "net"
[[axis.case]]
label = "absent"
set = { model = { use = "torchvision", name = "no_such_net" } }
[[axis.case]]
label = "there"
set = {}
"""
HEAD = 'base = "cat"\nseeds = [0, 1]\nsuite = "fast.toml"\n'
SUITE = '[[row]]\nattack = { use = "fgsm" }\n[[row]]\nattack = { use = "pgd", steps = 1 }\n'
RUNS = [f"lr-{lr}_seed-{seed}" for lr in ("0.05", "0.2") for seed in (0, 1)]


def write(folder: Path, text: str, epochs: int = 1, name: str = "mine") -> Path:
    (folder / "fast.toml").write_text(SUITE)
    file = folder / f"{name}.toml"
    file.write_text(text.replace("SET", TINY.format(epochs=epochs)))
    return file


def read(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def flat(body: Any) -> list[Any]:
    return [run for cell in body["cells"] for run in cell["runs"]]


@dataclass(frozen=True)
class Studied:
    file: Path
    folder: Path
    output: str


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studied]:
    root = tmp_path_factory.mktemp("study")
    file = write(root, HEAD + "SET" + AXIS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("COLUMNS", "200")
        result = run_cli("study", file)
        assert result.exit_code == 0, result.output
        yield Studied(file, root / "studies" / "mine", result.output)


def stamps(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in (folder / "runs").rglob("*") if path.is_file() and ".lock" not in path.name]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_every_cell_is_a_run_folder(studied: Studied) -> None:
    runs = studied.folder / "runs"
    assert sorted(path.name for path in runs.iterdir()) == RUNS
    for name in RUNS:
        files = ["recipe.toml", "result.json", "metrics.jsonl", "evaluations/fast.json"]
        assert all((runs / name / file).is_file() for file in files)
        assert run_cli("validate", runs / name / "recipe.toml").exit_code == 0


def test_the_result_is_that_of_the_runs(studied: Studied) -> None:
    body = read(studied.folder)
    assert (body["format"], body["name"], body["base"]) == (1, "mine", "cat")
    assert body["axes"] == [{"name": "lr", "labels": ["0.05", "0.2"], "numbers": [0.05, 0.2]}]
    assert [cell["labels"] for cell in body["cells"]] == [{"lr": "0.05"}, {"lr": "0.2"}]
    # The suite's own pgd starts from all samples that are right when clean; it is told apart.
    rows = ["clean", "pgd (steps=1)", "pgd (steps=2)", "fgsm", "pgd (steps=1) (fast)"]
    assert body["rows"] == rows
    for run in flat(body):
        own = read(studied.folder / run["folder"])
        assert (run["status"], run["reason"]) == ("finished", "")
        assert run["seconds"] == own["meta"]["training"]["seconds"]
        assert [run["accuracies"][row] for row in rows[:3]] == [row["accuracy"] for row in own["attacks"]]


def test_mean_and_deviation_are_those_of_numpy(studied: Studied) -> None:
    for cell in read(studied.folder)["cells"]:
        for row, spread in cell["rows"].items():
            values = [run["accuracies"][row] for run in cell["runs"]]
            assert spread["n"] == 2
            assert spread["mean"] == pytest.approx(np.mean(values))
            assert spread["deviation"] == pytest.approx(np.std(values, ddof=1))


def test_the_output_is_the_table(studied: Studied) -> None:
    body = read(studied.folder)
    for cell in body["cells"]:
        clean = cell["rows"]["clean"]
        text = f"{clean['mean'] * 100:.1f} ± {clean['deviation'] * 100:.1f} %"
        (line,) = [
            line for line in studied.output.splitlines() if line.startswith(f"│ {cell['labels']['lr']} ")
        ]
        assert text in line
    assert "4/4 lr=0.2, seed=1 · clean" in studied.output
    assert studied.output.splitlines()[-1].endswith(str(Path("studies") / "mine"))
    report = studied.folder / "report"
    for name in ("study", "trade-off", "equal-compute", "trade-off-fast"):
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    page = (report / "index.html").read_text()
    assert "suite fast" in page
    assert page.count('<th scope="row">lr=0.05</th>') == 4


def test_what_is_finished_is_not_run_again(studied: Studied, cli: Invoke) -> None:
    before, body = stamps(studied.folder), read(studied.folder)
    (studied.folder / "result.json").unlink()
    result = cli("study", studied.file, "--quiet")
    assert result.exit_code == 0
    assert stamps(studied.folder) == before
    assert read(studied.folder) == body
    assert "1/4" not in result.output


def test_only_what_lacks_is_run(studied: Studied, cli: Invoke) -> None:
    before = stamps(studied.folder)
    lost = studied.folder / "runs" / RUNS[2] / "evaluations" / "fast.json"
    lost.unlink()
    assert "trained" in cli("study", studied.file, "--list").output
    result = cli("study", studied.file)
    assert result.exit_code == 0
    assert "3/4" in result.output
    assert "2/4" not in result.output
    after = stamps(studied.folder)
    assert [path for path in before if after[path] != before[path]] == [lost]


@pytest.mark.slow
def test_a_result_that_is_not_what_the_study_asks_for_is_made_again(studied: Studied, cli: Invoke) -> None:
    """Of a suite that was changed, or of an evaluation by hand with other samples."""
    folder, suite = studied.folder / "runs" / RUNS[0], studied.file.parent / "fast.toml"
    kept = (folder / "evaluations" / "fast.json").read_bytes()
    assert cli("evaluate", folder, "--suite", suite, "--set", "evaluate.samples=5", "-q").exit_code == 0
    assert cli("study", studied.file, "--list").output.count(": trained") == 1
    assert cli("study", studied.file, "-q").exit_code == 0
    assert json.loads((folder / "evaluations" / "fast.json").read_text())["samples"] == 40
    try:
        suite.write_text(SUITE.replace("steps = 1", "steps = 2"))
        assert cli("study", studied.file, "--list").output.count(": trained") == 4
    finally:
        suite.write_text(SUITE)
    assert json.loads(kept)["samples"] == 40


def test_the_list_says_how_far_each_run_is(studied: Studied, cli: Invoke, tmp_path: Path) -> None:
    result = cli("study", studied.file, "--list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        f"{Path('studies', 'mine', 'runs', name)}: finished" for name in RUNS
    ]
    assert "  optimizer.lr = 0.2" in lines
    assert "  seed = 1" in lines
    result = cli("study", studied.file, "--list", "--out", tmp_path / "new")
    assert result.output.count(": not started") == 4
    assert not (tmp_path / "new").exists()


def test_a_list_reads_finished_runs_only_after_they_changed(
    studied: Studied, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study noted them as they ended; a list of ten thousand cannot read them all."""
    read_now: list[str] = []

    def look(study: Any, run: Run) -> Outcome:
        read_now.append(run.folder.name)
        return outcome.look(study, run)

    def listed() -> tuple[int, list[str]]:
        read_now.clear()
        return cli("study", studied.file, "--list").output.count(": finished"), list(read_now)

    monkeypatch.setattr("robustplug.studies.seen.look", look)
    seen = studied.folder / "seen.jsonl"
    assert listed() == (4, [])
    os.utime(studied.folder / "runs" / RUNS[1] / "result.json")
    os.utime(studied.folder / "runs" / RUNS[2] / "evaluations" / "fast.json")
    assert listed() == (4, RUNS[1:3])
    assert listed() == (4, [])
    lines = [line[:-9] if f'"{RUNS[0]}"' in line else line for line in seen.read_text().splitlines()]
    seen.write_text("\n".join([*lines, '{"run": 1}', "[", ""]))
    assert listed() == (4, RUNS[:1])
    seen.unlink()
    seen.mkdir()
    try:
        assert listed() == listed() == (4, RUNS)
    finally:
        seen.rmdir()
    text = studied.file.read_text()
    try:
        studied.file.write_text(text.replace("model.width = 2", "model.width = 3"))
        assert listed() == (0, RUNS)
    finally:
        studied.file.write_text(text)


def test_a_changed_study_does_not_touch_what_was_made_with_another(studied: Studied, cli: Invoke) -> None:
    before = stamps(studied.folder)
    text = studied.file.read_text()
    try:
        studied.file.write_text(text.replace("model.width = 2", "model.width = 3").replace("[0, 1]", "[0]"))
        result = cli("study", studied.file, "--quiet")
        listed = cli("study", studied.file, "--list").output
    finally:
        studied.file.write_text(text)
    assert result.exit_code == 1
    assert result.output.count("model.width: the run has 2, the recipe 3") == 2
    assert "use another --out or delete" in result.output
    assert listed.count(": another recipe (") == 2
    assert stamps(studied.folder) == before


def test_a_failed_cell_does_not_stop_the_others(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'base = "cat"\nseeds = [0]\nSET' + BROKEN)
    file.write_text(file.read_text().replace("model.width = 2\n", ""))
    result = cli("study", file)
    assert result.exit_code == 1, result.output
    assert "net=absent, seed=0 failed: " in result.output
    assert "Traceback" not in result.output
    absent, there = flat(read(tmp_path / "studies" / "mine"))
    assert (absent["status"], there["status"]) == ("failed", "finished")
    assert absent["reason"]
    assert "│ there " in result.output
    failure = tmp_path / "studies" / "mine" / absent["folder"] / "failure.txt"
    assert "Traceback" in failure.read_text()


@pytest.mark.slow
def test_a_bug_in_a_cell_is_a_failure_and_is_tried_again(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'base = "cat"\nSET' + AXIS)
    train = robustplug.run.train

    def broken(recipe: Any, **rest: Any) -> Any:
        if recipe["optimizer"]["lr"] == 0.05:
            raise ZeroDivisionError("a bug [in a plugin]")
        return train(recipe, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(robustplug.run, "train", broken)
        result = cli("study", file)
    assert result.exit_code == 1
    assert "lr=0.05, seed=0 failed: ZeroDivisionError: a bug [in a plugin]" in result.output
    folder = tmp_path / "studies" / "mine"
    assert [run["status"] for run in flat(read(folder))] == ["failed", "finished"]
    assert read(folder)["cells"][0]["rows"]["clean"] == {"mean": None, "deviation": None, "n": 0}
    result = cli("study", file)
    assert result.exit_code == 0, result.output
    assert [run["status"] for run in flat(read(folder))] == ["finished", "finished"]
    assert not list(folder.rglob("failure.txt"))


def test_an_interrupted_study_goes_on_to_the_same_result(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'base = "cat"\nseeds = [0]\nSET' + AXIS, epochs=2)
    whole = cli("study", file, "--out", "whole")
    assert whole.exit_code == 0, whole.output
    heard = []

    def stop(self: RunReporter, *_: Any) -> None:
        heard.append(self.line.name)
        if self.line.name == "lr=0.2, seed=0" and len(heard) > 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunReporter, "epoch", lambda *_: None)
        patch.setattr(RunReporter, "batch", stop)
        patch.setattr("robustplug.training.train.REFRESH", -1.0)
        result = cli("study", file)
    assert result.exit_code == 130, result.output
    assert "give the same command again" in result.output
    folder = tmp_path / "studies" / "mine"
    first, second = (folder / "runs" / f"lr-{lr}_seed-0" for lr in ("0.05", "0.2"))
    assert (first / "result.json").is_file()
    assert list((second / "checkpoints").iterdir())
    assert not (second / "result.json").exists()
    assert [run["status"] for run in flat(read(folder))] == ["finished", "not started"]
    assert ": unfinished" in cli("study", file, "--list").output
    started = (second / "environment.json").stat().st_mtime_ns
    assert cli("study", file).exit_code == 0
    assert (second / "environment.json").stat().st_mtime_ns == started
    again, once = flat(read(folder)), flat(read(tmp_path / "whole"))
    assert [run["accuracies"] for run in again] == [run["accuracies"] for run in once]
    weights = Path("runs", "lr-0.2_seed-0", "model.safetensors")
    assert (folder / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_problems_are_told_before_anything_is_run(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, HEAD + "SET" + AXIS.replace("0.2]", "-1]") + 'lables = ["a", "b"]\n')
    result = cli("study", file)
    assert result.exit_code == 2
    assert 'did you mean "labels"?' in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "studies").exists()
    file = write(tmp_path, HEAD + "SET" + AXIS.replace("0.2]", "-1]"))
    result = cli("study", file)
    assert result.exit_code == 2
    assert f"{file}:17: axis.0.values.1" in result.output
    assert "(in cell lr=-1)" in result.output
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["absent.toml"], "no bundled study"),
        ([], "Missing argument"),
        (["cat", "--sett"], "No such option"),
    ],
)
def test_wrong_usage_has_exit_code_2(cli: Invoke, arguments: list[str], why: str) -> None:
    result = cli("study", *arguments)
    assert result.exit_code == 2
    assert why in result.output


def test_bundled_studies_are_listed_and_copied(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "# Two rates.\n" + HEAD)
    monkeypatch.setattr(
        "robustplug.recipe.toml.files._bundled", lambda inside: {"mine": file} if inside else {}
    )
    result = cli("recipes", "list", "--studies")
    assert (result.exit_code, result.output) == (0, "mine  Two rates.\n")
    result = cli("recipes", "copy", "mine", tmp_path / "copy.toml", "--study")
    assert result.exit_code == 0
    assert f"robustplug study {tmp_path / 'copy.toml'}" in result.output
    assert (tmp_path / "copy.toml").read_bytes() == file.read_bytes()
    assert cli("recipes", "list", "--studies", "--suites").exit_code == 2
    assert cli("recipes", "copy", "mine", "--study", "--suite").exit_code == 2


def test_several_processes_are_refused(cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli("study", write(tmp_path, HEAD + "SET"))
    assert result.exit_code == 2
    assert "in one process" in result.output
    assert not (tmp_path / "studies").exists()


def test_two_studies_do_not_work_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'base = "cat"\nSET')
    with locked(tmp_path / "there"), pytest.raises(RunError, match="another process"):
        robustplug.run.study(file, out="there")


@pytest.mark.slow
def test_side_by_side_gives_the_same_bits_and_ctrl_c_keeps_what_is_finished(
    cli: Invoke, studied: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = [sys.executable, "-m", "robustplug", "study", str(studied.file), "--out", "two"]
    study += ["--processes", "2"]
    with subprocess.Popen(study, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # one is done
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert "give the same command again" in said
    listed = cli("study", studied.file, "--list", "--out", "two").output
    assert 1 <= listed.count(": finished") < 4
    assert ": failed" not in listed
    result = cli("study", studied.file, "--processes", "2", "--out", "two")
    assert result.exit_code == 0, result.output
    assert [run["status"] for run in flat(read(tmp_path / "two"))] == ["finished"] * 4
    for name in RUNS:
        one, two = studied.folder / "runs" / name, tmp_path / "two" / "runs" / name
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        assert [row["right"] for row in read(one)["attacks"]] == [
            row["right"] for row in read(two)["attacks"]
        ]


@pytest.mark.slow
def test_an_audit_is_made_once_and_shown(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'base = "cat"\naudit = true\nSET')
    result = cli("study", file)
    assert result.exit_code == 0, result.output
    (run,) = flat(read(tmp_path / "studies" / "mine"))
    assert run["audit"]["grade"]
    assert " audit " in result.output
    before = stamps(tmp_path / "studies" / "mine")
    assert cli("study", file).exit_code == 0
    assert stamps(tmp_path / "studies" / "mine") == before


def test_a_run_whose_suite_states_nothing_has_failed_however_often(
    tmp_path: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack = '[[row]]\nattack = { use = "rays-of-tomorrow" }\nneeds = "robustplug_tomorrow"\n'
    (tmp_path / "empty.toml").write_text(f"schema = 1\n{attack}")
    file = write(tmp_path, 'base = "cat"\nsuite = "empty.toml"\nSET')
    before = None
    for _ in range(2):
        result = cli("study", file)
        assert result.exit_code == 1, result.output
        assert "empty: no attack states a number: rays-of-tomorrow: needs the plugin" in result.output
        runs = flat(read(tmp_path / "studies" / "mine"))
        assert {run["status"] for run in runs} == {"failed"}
        # What was trained is not trained again.
        trained = [
            (tmp_path / "studies" / "mine" / run["folder"] / "result.json").read_bytes() for run in runs
        ]
        assert before in (None, trained)
        before = trained


def row(name: str, accuracy: float, skipped: str = "") -> AttackResult:
    return AttackResult(name, {}, accuracy, 0, 0, 0, 0.0, 0.0, 0.0, skipped=skipped)


def test_rows_of_one_name_are_numbered_and_those_of_a_suite_named() -> None:
    own = Result("test", 1, {}, (row("clean", 0.9), row("pgd", 0.5), row("pgd", 0.4)))
    suite = Result("test", 1, {}, (row("clean", 0.8), row("pgd", 0.3), row("aa", float("nan"), "no plugin")))
    rows = rows_of([("", own), ("fast", suite)])
    assert {name: row.accuracy for name, row in rows.items()} == {
        "clean": 0.9,
        "pgd": 0.5,
        "pgd 2": 0.4,
        "pgd (fast)": 0.3,
    }


def test_one_seed_has_no_deviation() -> None:
    assert spread_of([0.5]) == {"mean": 0.5, "deviation": None, "n": 1}
