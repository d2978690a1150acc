"""A trial that failed for a passing reason: what is kept of it, and when it is tried again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustplug.core.reporting import Silent
from robustplug.core.types import EpochReport
from robustplug.errors import RunError
from robustplug.recipe.errors import Problem, RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.write import write_recipe
from robustplug.run import audit
from robustplug.studies.tuning import search, trial
from robustplug.studies.tuning.kept import FAILURE
from robustplug.studies.tuning.options import read_tuning
from robustplug.studies.work import Commands

pytest.importorskip("optuna")

TABLES: dict[str, Any] = {
    "base": "trades",
    "name": "mine",
    "passes": 24,
    "finalists": 1,
    "set": {"train.epochs": 2},
    "option": [{"key": "method.beta", "low": 0.1, "high": 10, "log": True}],
}
FINAL = SimpleNamespace(attacks=[SimpleNamespace(accuracy=0.9), SimpleNamespace(accuracy=0.4)])


class Machine:
    """Train nothing; fail in some trials, after one of two epochs.

    Args:
        failing: numbers of the trials that fail.
        before: whether they fail before the run folder is made.
    """

    def __init__(self, failing: Iterable[int] = (), before: bool = False) -> None:
        self.failing, self.before = set(failing), before
        self.trained: list[int] = []

    def train(self, tables: dict[str, Any], *, out: Path, resume: bool, reporter: Any) -> None:
        number, beta = int(out.name), tables["method"]["beta"]
        self.trained.append(number)
        fails = number in self.failing
        if fails and self.before:
            raise RecipeError([Problem("model", "does not fit")], "recipe")
        assert resume == (out / "recipe.toml").is_file()
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.toml").write_text(write_recipe(recipe_from_mapping(tables)))
        for report in reports(beta)[: 1 if fails else 2]:
            reporter.epoch(report, 2)
        if fails:
            raise RunError("memory is exhausted")
        (out / "result.json").write_text(str(beta))

    def search(self, folder: Path, passes: int = 24) -> dict[str, Any]:
        commands = Commands(self.train, lambda run, **_: FINAL, audit)
        tuning = read_tuning({**TABLES, "passes": passes})
        return search.run_tuning(tuning, folder, commands, lambda recipe: 1.0, Silent(), lambda each: None)


def reports(beta: float) -> list[EpochReport]:
    reached = {"clean": 0.95 - 0.02 * beta, "robust": 0.3 + 0.03 * beta}
    return [EpochReport(epoch, {}, reached, 0.1, 1.0, True) for epoch in range(2)]


@pytest.fixture(autouse=True)
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the epochs of a finished trial from what it wrote."""

    def read(folder: Path, reporter: Any) -> list[EpochReport] | None:
        path = folder / "result.json"
        return reports(float(path.read_text())) if path.is_file() else None

    monkeypatch.setattr(trial, "_finished", read)


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_with_trials_after_it_is_believed(before: bool, tmp_path: Path) -> None:
    first = Machine({2, 5}, before)
    body = first.search(tmp_path)
    failed = body["trials"][2]
    assert failed["status"] == "failed"
    assert ("does not fit" if before else "memory is exhausted") in failed["reason"]
    assert failed["passes"] == (0 if before else 1)
    assert (tmp_path / "trials" / "0002" / FAILURE).is_file()
    # There is enough memory now, but what came after was proposed when there was not.
    second = Machine()
    assert second.search(tmp_path) == body
    assert second.trained == []


def test_the_last_failures_are_tried_again_and_end_as_if_nothing_had_failed(tmp_path: Path) -> None:
    whole = Machine().search(tmp_path / "whole")
    poor = Machine({4, *range(6, 20)})
    with pytest.raises(RunError, match="10 trials in a row could not be trained"):
        poor.search(tmp_path / "poor", passes=200)
    assert poor.trained == [*range(16)]
    rich = Machine({4})
    body = rich.search(tmp_path / "poor", passes=24)
    # 4 stays as it is; from 6 on, none had a trial after it that did not fail.
    assert rich.trained[:3] == [6, 7, 8]
    assert [each["number"] for each in body["trials"] if each["status"] == "failed"] == [4]
    assert not (tmp_path / "poor" / "trials" / "0006" / FAILURE).exists()
    assert Machine().search(tmp_path / "poor") == body
    # Without what depends on its failure, it is tried again, too.
    for number in range(4, 20):
        shutil.rmtree(tmp_path / "poor" / "trials" / f"{number:04d}", ignore_errors=True)
    assert Machine().search(tmp_path / "poor") == whole


def test_a_failure_that_is_deleted_alone_is_said(tmp_path: Path) -> None:
    Machine({2}).search(tmp_path)
    shutil.rmtree(tmp_path / "trials" / "0002")
    machine = Machine()
    with pytest.raises(RunError, match="Delete this folder and those after it"):
        machine.search(tmp_path)
    assert machine.trained == [2]


def test_a_failure_that_was_edited_is_tried_again(tmp_path: Path) -> None:
    Machine({3}).search(tmp_path, passes=8)
    path = tmp_path / "trials" / "0003" / FAILURE
    path.write_text(path.read_text().replace("exhausted", "plenty"))
    machine = Machine()
    machine.search(tmp_path, passes=8)
    assert machine.trained[0] == 3
