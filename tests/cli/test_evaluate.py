"""`robustplug evaluate` and `audit` on a run and on a model file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import robustplug

from ..training.runs import tiny
from .conftest import Invoke

SUITE = """schema = 1
[[row]]
attack = { use = "pgd" }
sweep.attack.steps = [1, 2]
[[row]]
attack = { use = "rays-of-tomorrow" }
needs = "robustplug_tomorrow"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    robustplug.train(tiny("pgd-at", method={"vicinity": {"use": "linf", "eps": 0.1}}), out=folder)
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def test_a_suite_is_printed_and_written(run: Path, suite: Path, cli: Invoke) -> None:
    result = cli("evaluate", run, "--suite", suite, "--device", "cpu")
    assert result.exit_code == 0, result.output
    for part in ("suite mine", "pgd (steps=1)", "pgd (steps=2)", "robustplug_tomorrow", "not installed"):
        assert part in " ".join(result.output.split())
    body = json.loads((run / "evaluations" / "mine.json").read_text())
    assert [row["name"] for row in body["attacks"]] == [
        "clean",
        "pgd (steps=1)",
        "pgd (steps=2)",
        "rays-of-tomorrow",
    ]
    assert body["attacks"][3]["accuracy"] is None
    assert body["threat"] == {"use": "linf", "eps": 0.1}
    assert body["meta"]["input_range"] == [0, 1]
    assert body["meta"]["normalisation"]["mean"]
    assert not list((run / "evaluations").glob("*.journal*"))


EMPTY = """schema = 1
[[row]]
attack = { use = "rays-of-tomorrow" }
needs = "robustplug_tomorrow"
"""


def test_a_script_is_told_that_no_attack_could_be_run(run: Path, cli: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text(EMPTY)
    for command in ("evaluate", "attack"):
        result = cli(command, run, "--suite", path, "--device", "cpu", "--out", tmp_path / command)
        assert result.exit_code == 2
        last = result.output.strip().splitlines()[-1]
        assert last.startswith("no attack states a number: rays-of-tomorrow: needs the plugin")
        assert (tmp_path / command / "empty.json").is_file()
    out = tmp_path / "audit"
    result = cli("audit", run, "--budget", "1e-9", "--device", "cpu", "--out", out)
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1].startswith("no attack states a number: ")
    assert (out / "audit.json").is_file()
    # Without attacks there is nothing that could be skipped.
    none = tmp_path / "none.toml"
    none.write_text('schema = 1\n[[row]]\nattack = { use = "none" }\n')
    assert cli("evaluate", run, "--suite", none, "--device", "cpu").exit_code == 0
    result = cli("attack", run, "--set", "evaluate.attack=[]", "--device", "cpu", "--out", tmp_path / "bare")
    assert result.exit_code == 2
    assert "nothing was run, as the recipe has no attack" in result.output


def table(path: Path, shift: float = 0.0) -> Path:
    lines = [f"{(i % 7) / 10 + shift:.2f},{(i % 5) / 10:.2f},{'ab'[i % 7 > 3]}" for i in range(40)]
    path.write_text("one,two,label\n" + "\n".join(lines) + "\n")
    return path


def test_a_run_is_evaluated_on_another_file_but_not_on_another_share(cli: Invoke, tmp_path: Path) -> None:
    recipe = {
        **tiny(),
        "task": {"use": "arrays", "path": str(table(tmp_path / "a.csv")), "label": "label"},
        "model": {"use": "mlp"},
    }
    folder = tmp_path / "run"
    robustplug.train(recipe, out=folder)
    other = table(tmp_path / "b.csv", 0.01)
    done = cli("evaluate", folder, "--set", f"task.test={other}", "--device", "cpu")
    assert done.exit_code == 0, done.output
    body = json.loads((folder / "evaluations" / "evaluation.json").read_text())
    assert body["samples"] == 40
    assert body["meta"]["data"] == {"task.test": str(other)}
    assert (
        body["meta"]["asked"]["evaluation"]
        != json.loads((folder / "result.json").read_text())["meta"]["asked"]["evaluation"]
    )
    for wrong in ("0.5", "1/2", "7"):
        refused = cli("evaluate", folder, "--set", f"task.test={wrong}")
        assert refused.exit_code == 2
        assert "names the file of other test samples" in refused.output
    assert cli("evaluate", folder, "--set", "task.train=b.csv").exit_code == 2


def test_a_model_file_is_evaluated_on_a_task(run: Path, cli: Invoke, tmp_path: Path) -> None:
    arguments = (
        *("evaluate", run / "model.safetensors", "--task", "digits", "--model", "small-cnn"),
        *("--set", "model.width=4", "--set", "model.hidden=16", "--set", "evaluate.samples=20"),
        *("--device", "cpu", "--out", tmp_path / "out", "--json", tmp_path / "again.json"),
    )
    result = cli(*arguments)
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert body["meta"]["loaded"]["kind"] == "state-dict"
    assert len(body["meta"]["loaded"]["sha256"]) == 64
    assert body["attacks"][0]["name"] == "clean"
    assert json.loads((tmp_path / "again.json").read_text())["attacks"] == body["attacks"]


def test_a_suite_can_be_validated(suite: Path, cli: Invoke, tmp_path: Path) -> None:
    assert "3 rows" in cli("validate", suite, "--suite").output
    suite.write_text(SUITE.replace("steps", "stepz"))
    result = cli("validate", suite, "--suite")
    assert result.exit_code == 2
    assert 'did you mean "steps"' in result.output


WRONG = {
    "no task": (["evaluate", "MODEL"], "--task digits"),
    "no such suite": (["evaluate", "RUN", "--suite", "quik"], 'did you mean "quick"'),
    "no such run": (["evaluate", "absent"], "is not a run folder"),
    "other keys of a run": (["evaluate", "RUN", "--set", "train.epochs=2"], "only evaluate.*"),
    "a source that is none": (
        ["evaluate", "RUN", "--suite", "quick", "--source", "absent"],
        "is not a run folder",
    ),
    "a mean that is none": (["evaluate", "MODEL", "--task", "digits", "--mean", "a,b"], "not a number"),
    "an audit without a task": (["audit", "MODEL"], "--task digits"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_end_with_one_message(case: str, run: Path, cli: Invoke) -> None:
    arguments, message = WRONG[case]
    places = {"RUN": run, "MODEL": run / "model.safetensors"}
    result = cli(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_the_audit_is_printed_and_added_to_the_result(run: Path, cli: Invoke) -> None:
    before = json.loads((run / "result.json").read_text())
    result = cli("audit", run, "--samples", "16", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "audit: grade" in result.output
    after = json.loads((run / "result.json").read_text())
    added = {"audit", "seal"}
    assert {key: value for key, value in after.items() if key not in added} == {
        key: value for key, value in before.items() if key not in added
    }
    checks = [finding["check"] for finding in after["audit"]["findings"]]
    assert len(checks) == len(set(checks)) >= 12
    assert after["audit"]["grade"] in "ABUF"
    written = json.loads((run / "evaluations" / "audit.json").read_text())
    assert written["audit"] == after["audit"]
    assert len(written["attacks"]) > 10
