"""A search proposes the same trials after a kill, keeps to its budget, and stops what is hopeless."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustplug.core.reporting import Silent
from robustplug.errors import Interrupted, RunError
from robustplug.report.pages.tuning_page import tuning_report
from robustplug.report.tables.comparison import compare
from robustplug.run import audit, evaluate, train
from robustplug.studies.tuning import search
from robustplug.studies.tuning.front import front, is_hopeless
from robustplug.studies.tuning.kept import Trial
from robustplug.studies.tuning.options import Tuning, read_tuning
from robustplug.studies.work import Commands

from ...training.runs import timeless

pytest.importorskip("optuna")

TABLES: dict[str, Any] = {
    "base": "trades",
    "name": "mine",
    "passes": 24,
    "finalists": 2,
    "set": {"train.epochs": 2},
    "option": [
        {"key": "method.beta", "low": 0.1, "high": 10, "log": True},
        {"key": "method.perturbation.steps", "low": 1, "high": 12},
        {"key": "method.perturbation.start", "values": ["uniform", "normal"]},
    ],
}


def test_the_front_is_what_nothing_dominates() -> None:
    points = {0: (0.9, 0.5), 1: (0.8, 0.6), 2: (0.8, 0.5), 3: (0.9, 0.5), 4: (0.7, 0.4)}
    assert front(points) == [1, 0, 3]


def test_a_trial_below_the_medians_of_both_is_hopeless() -> None:
    others = [(0.9, 0.5), (0.8, 0.6), (0.7, 0.7), (0.6, 0.8)]
    assert is_hopeless((0.7, 0.6), others)
    assert not is_hopeless((0.76, 0.1), others)
    assert not is_hopeless((0.1, 0.66), others)
    assert not is_hopeless((0.0, 0.0), others[:3])


def reached(values: dict[str, Any]) -> tuple[float, float]:
    beta, steps = values["method.beta"], values["method.perturbation.steps"]
    return 0.95 - 0.02 * beta, 0.3 + 0.05 * beta - 0.001 * (steps - 6) ** 2


def pretended(calls: list[int], killed_at: int | None = None) -> Callable[..., Trial]:
    """Return a `carry_out` that trains nothing; a trial costs 2 passes."""

    def carry_out(number: int, values: dict[str, Any], *rest: Any) -> Trial:
        rest[2].mkdir(parents=True, exist_ok=True)
        if number == killed_at and number not in calls:
            calls.append(number)
            raise Interrupted("stopped", 143)
        calls.append(number)
        return Trial(number, values, "finished", {2: reached(values)}, 2, 2, 2.0, 1.0)

    return carry_out


FINAL = SimpleNamespace(attacks=[SimpleNamespace(accuracy=0.9), SimpleNamespace(accuracy=0.4)])
PRETENDED = Commands(train, lambda run, **_: FINAL, audit)


def run(folder: Path, tuning: Tuning, commands: Commands = PRETENDED, each: float = 1.0) -> dict[str, Any]:
    return search.run_tuning(tuning, folder, commands, lambda recipe: each, Silent(), lambda trial: None)


def test_a_killed_search_proposes_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = read_tuning(TABLES)
    monkeypatch.setattr(search, "carry_out", pretended([]))
    whole = run(tmp_path / "whole", tuning)
    assert len(whole["trials"]) == 12
    assert whole["trials"][0]["base"]
    assert whole["trials"][0]["values"]["method.beta"] == 6
    calls: list[int] = []
    monkeypatch.setattr(search, "carry_out", pretended(calls, killed_at=10))
    with pytest.raises(Interrupted, match="same command again to resume"):
        run(tmp_path / "killed", tuning)
    assert len(json.loads((tmp_path / "killed" / "result.json").read_text())["trials"]) == 10
    assert run(tmp_path / "killed", tuning) == whole
    other = run(tmp_path / "other", read_tuning({**TABLES, "seed": 1}))
    assert other["trials"][1]["values"] != whole["trials"][1]["values"]


def test_the_page_shows_the_front_and_what_mattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "carry_out", pretended([]))
    body = run(tmp_path / "t", read_tuning(TABLES))
    shares = body["importances"]["robust"]
    assert max(shares, key=shares.__getitem__) == "method.beta"
    assert sum(shares.values()) == pytest.approx(1)
    assert [each["number"] for each in body["finalists"]][:2] == body["front"][:2]
    text = tuning_report(tmp_path / "t", tmp_path / "t" / "report")
    for said in ("The front", "What mattered", "Finalists", "Trials", "method.beta", "12"):
        assert said in text


def test_a_budget_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "carry_out", pretended([]))
    assert len(run(tmp_path / "a", read_tuning({**TABLES, "passes": 5}))["trials"]) == 2
    timed = {key: value for key, value in TABLES.items() if key != "passes"} | {"minutes": 0.05}
    assert len(run(tmp_path / "b", read_tuning(timed), each=float("nan"))["trials"]) == 3
    with pytest.raises(RunError, match="does not suffice for one trial, which takes 2 passes"):
        run(tmp_path / "c", read_tuning({**TABLES, "passes": 1}))
    with pytest.raises(RunError, match="depend on the model"):
        run(tmp_path / "d", read_tuning(TABLES), each=float("nan"))


def test_trials_that_fail_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(number: int, values: dict[str, Any], *rest: Any) -> Trial:
        return Trial(number, values, "failed", reason="no memory")

    monkeypatch.setattr(search, "carry_out", carry_out)
    with pytest.raises(RunError, match="10 trials in a row .* no memory"):
        run(tmp_path / "t", read_tuning(TABLES))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="holds no tuning"):
        run(tmp_path, read_tuning(TABLES))


SMALL: dict[str, Any] = {
    **TABLES,
    "passes": 40,
    "set": {
        "model": {"use": "small-cnn", "width": 2, "hidden": 4},
        "task": {"use": "digits", "test": 1500, "validation": 40},
        "train": {"epochs": 3, "batch_size": 40, "device": "cpu"},
        "validate": {"samples": 20, "attack": {"use": "fgsm"}},
        "evaluate": {"samples": 4},
    },
    "option": [
        {"key": "method.beta", "low": 0.1, "high": 10, "log": True},
        {"key": "optimizer.lr", "low": 0.01, "high": 0.2, "log": True},
    ],
}
SMALL["set"]["method.perturbation.steps"] = 1


class Killed(Silent):
    """Stop the training of a trial at the end of an epoch, as a signal does."""

    def __init__(self, epoch: int, run: int) -> None:
        self.epoch_of, self.run, self.begun = epoch, run, 0

    def begin(self, run: Any, progress: Any) -> None:
        self.begun += 1

    def epoch(self, report: Any, epochs: int) -> None:
        if self.begun == self.run and report.epoch == self.epoch_of:
            raise Interrupted("stopped", 143)


@pytest.mark.slow
@pytest.mark.parametrize("where", [(0, 1), (1, 2), (2, 2)])
def test_a_killed_trial_is_trained_on_with_the_same_bits(
    where: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FINAL", {"name": "tuned", "row": [{"attack": {"use": "fgsm"}}]})
    commands = Commands(train, evaluate, audit)

    def go(folder: Path, reporter: Silent) -> dict[str, Any]:
        tuning = read_tuning(SMALL)
        return search.run_tuning(tuning, folder, commands, lambda r: 5.0, reporter, lambda trial: None)

    whole = go(tmp_path / "whole", Silent())
    with pytest.raises(Interrupted):
        go(tmp_path / "killed", Killed(*where))
    found = go(tmp_path / "killed", Silent())
    assert len(found["trials"]) == 2
    assert timeless(found) == timeless(whole)
    finalists = sorted(found["finalists"], key=lambda each: int(each["number"]))
    (group,) = compare([tmp_path / "killed"], "tuned").groups
    assert [entry.name for entry in group.entries] == [f"trial {each['number']}" for each in finalists]
    values = [value.mean for value in group.columns[-1].values if value]
    assert values == [each["autoattack"] for each in finalists]
    for trial in ("0000", "0001"):
        names = [tmp_path / each / "trials" / trial / "model.safetensors" for each in ("whole", "killed")]
        assert names[0].read_bytes() == names[1].read_bytes()
