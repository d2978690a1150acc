"""What version 0.1 wrote, before the rooms were built, is read as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.api import open_run
from robustplug.runs.result_file import result_from_json

DATA = Path(__file__).parents[1] / "data" / "run-0.1"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Copies: what is opened may write beside it."""
    return shutil.copytree(DATA, tmp_path / "runs")


def stored(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_finished_run_is_evaluated_as_it_was(runs: Path) -> None:
    before = result_from_json(stored(runs / "finished" / "result.json"))
    with pytest.warns(UserWarning, match="no manifest.json: files of an earlier version carry no seal"):
        after = robustplug.evaluate(runs / "finished")
    assert (
        [row.name for row in after.attacks]
        == [row.name for row in before.attacks]
        == ["clean", "pgd (steps=5)"]
    )
    assert after.meta["recipe_hash"] == before.meta["recipe_hash"]
    assert after.samples == before.samples
    for one, other in zip(before.attacks, after.attacks, strict=True):
        # Another processor may round a sample at the decision boundary otherwise.
        assert sum(a != b for a, b in zip(one.right, other.right, strict=True)) <= 1


def test_its_method_remembers_what_it_learned(runs: Path) -> None:
    opened = open_run(runs / "finished")
    (memory,) = opened.method.state.memories()
    assert opened.name == "written-by-0-1"
    assert opened.epochs == 3
    assert 0 < float(memory.values.max()) < 0.1
    assert float(memory.values.std()) > 0


def test_its_results_are_compared_and_reported(runs: Path) -> None:
    (group,) = robustplug.compare([runs / "finished"]).groups
    assert {column.name for column in group.columns} >= {"clean", "pgd (steps=5)"}
    page = robustplug.run.report(runs / "finished", compute=False).page.read_text()
    grade = stored(runs / "finished" / "evaluations" / "audit.json")["audit"]["grade"]
    assert "pgd (steps=5)" in page
    assert f"grade {grade}" in page.lower() or grade in page
    (quick,) = robustplug.compare([runs / "finished"], suite="quick").groups
    assert len(quick.columns) > 1


def test_an_unfinished_run_goes_on_to_the_end_of_the_finished_one(runs: Path) -> None:
    with pytest.warns(UserWarning, match="no manifest.json") as said:
        trained = robustplug.train(resume=runs / "unfinished")
    assert sum("no manifest.json" in str(each.message) for each in said) == 1
    assert len(stored(runs / "unfinished" / "manifest.json")["unsealed"]) == 1
    lines = (runs / "unfinished" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]
    robustplug.evaluate(runs / "unfinished", samples=4)
    before = result_from_json(stored(runs / "finished" / "result.json"))
    assert [report.epoch for report in trained.history] == [0, 1, 2]
    first = stored(runs / "finished" / "checkpoints" / "epoch-00003-batch-0000000.json")["meta"]["history"]
    assert [report.train["loss"] for report in trained.history] == pytest.approx(
        [report["train"]["loss"] for report in first], rel=1e-3
    )
    for one, other in zip(before.attacks, trained.result.attacks, strict=True):
        assert sum(a != b for a, b in zip(one.right, other.right, strict=True)) <= 2
