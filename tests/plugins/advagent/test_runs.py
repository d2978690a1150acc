"""Whole runs on scripted dialogues: imitate, learn from outcomes, be attacked, be hardened."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import robustplug
from robustplug.cli import main
from robustplug_advagent.commands import query_curves
from robustplug_advagent.protocol import Goal, OwnAgent, Turn

from ...training.runs import merged, newest, outcome
from ...training.test_resume import Killed, kill_after_save
from .agents import MODEL, RULES, TASK, small_task

MEASURES = ("PAR %", "adversary", "target", "advantage", "agree %", "turns")
WHITE_BOX = ("reactive-attack", "preemptive-attack", "any-turn-attack")
IMITATE: dict[str, Any] = {
    "name": "sv",
    "task": TASK,
    "model": MODEL,
    "method": {"use": "erm", "vicinity": RULES, "loss": {"use": "dialogue"}},
    "optimizer": {"use": "adamw", "lr": 0.02, "weight_decay": 0.0},
    "train": {"epochs": 6, "batch_size": 16, "clip_grad_norm": 1.0, "select": "loss", "device": "cpu"},
    "validate": {"attack": {"use": "none"}},
    "evaluate": {
        "samples": 4,
        "loss": {"use": "dialogue", "words": 0, "choice": 1},
        "attack": [{"use": "partner"}],
    },
}


@pytest.fixture(scope="module")
def imitator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return robustplug.train(IMITATE, out=tmp_path_factory.mktemp("runs") / "sv").folder


def learning(method: str, imitator: Path, **tables: Any) -> dict[str, Any]:
    """Return a recipe of two epochs of four batches that learns from negotiations."""
    recipe = {
        **IMITATE,
        "name": method,
        "task": {**TASK, "learn_from": "scenarios"},
        "model": {**MODEL, "from": str(imitator)},
        "method": {"use": method, "people": 4, "vicinity": RULES},
        "optimizer": {"use": "sgd", "lr": 0.1},
        "train": {"epochs": 2, "batch_size": 8, "select": "last", "device": "cpu"},
        "validate": {"samples": 8, "attack": {"use": "partner", "agent": str(imitator)}},
    }
    return merged(recipe, tables)


@pytest.mark.slow
def test_an_imitator_learns_its_words_and_keeps_the_epoch_of_the_best_decisions(imitator: Path) -> None:
    history = [json.loads(line) for line in (imitator / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["train"]["loss"] < 0.8 * history[0]["train"]["loss"]
    losses = [epoch["validation"]["loss"] for epoch in history]
    assert [epoch["epoch"] for epoch in history if epoch["best"]][-1] == losses.index(min(losses))
    result = CliRunner().invoke(main, ["perplexity", str(imitator)])
    assert result.exit_code == 0, result.output
    found = json.loads((imitator / "result.json").read_text())["perplexity"]
    assert 1 < found["low"] < found["value"] < found["high"] < len(small_task().info.words)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hardening"])
def test_learning_from_negotiations_survives_a_kill_bit_for_bit(
    method: str, imitator: Path, tmp_path: Path
) -> None:
    recipe = learning(method, imitator, train={"checkpoint_batches": 1})
    robustplug.train(recipe, out=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_after_save(monkeypatch, 3)
        with pytest.raises(Killed):
            robustplug.train(recipe, out=tmp_path / "killed")
    assert newest(tmp_path / "killed") == "epoch-00000-batch-0000003"
    robustplug.train(resume=tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def suite(speaker: Path) -> dict[str, Any]:
    attacks: list[dict[str, Any]] = [
        {"use": "partner", "agent": str(speaker)},
        {"use": "rl-attack", "epochs": 1, "batch": 16, "people": 4},
        {"use": "transfer-attack", "epochs": 1, "batch": 16, "people": 4, "turns": 1},
        *({"use": name, "changes": 1} for name in WHITE_BOX),
        {
            "use": "any-turn-attack",
            "otherwise": "transfer",
            "changes": 1,
            "epochs": 1,
            "batch": 16,
            "people": 4,
        },
    ]
    rows = [
        {"attack": attack if "agent" in attack else {**attack, "speaker": str(speaker)}} for attack in attacks
    ]
    return {"schema": 1, "name": "advagent", "row": rows}


@pytest.mark.slow
def test_the_suite_says_who_gets_what_with_intervals_and_tells_dialogues(
    imitator: Path, tmp_path: Path
) -> None:
    result = robustplug.evaluate(imitator, suite=suite(imitator), samples=12, out=tmp_path)
    clean, *rows = result.attacks
    assert not any(math.isfinite(measure.mean) for measure in clean.measures.values())
    assert clean.example == ""
    body = json.loads((tmp_path / "advagent.json").read_text())
    for row, written in zip(rows, body["attacks"][1:], strict=True):
        assert not row.skipped, row.skipped
        assert row.attempted == 12
        assert row.rejected == 0
        for name in MEASURES:
            measure = row.measures[name]
            assert measure.count == 12
            # Equal numbers have no interval, unless they are shares.
            known = math.isfinite(measure.low)
            assert known or (len({*row.measures}) > 1 and "%" not in name)
            assert not known or measure.low <= measure.mean <= measure.high
            assert written["measures"][name]["mean"] == pytest.approx(measure.mean)
        gap = row.measures["adversary"].mean - row.measures["target"].mean
        assert row.measures["advantage"].mean == pytest.approx(gap)
        # Whoever attacks takes the rest: both always agree.
        assert row.name.startswith("partner") or row.measures["agree %"].mean == 100
        assert row.measures["PAR %"].mean == pytest.approx(100 * row.broken / 12)
        assert "<selection>" in row.example
        assert written["example"] == row.example


class Polite:
    """Ask for what it values most, agree to whatever is said then, and take the first item only."""

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        best = max(goal.values, key=lambda item: goal.values[item] * goal.counts[item])
        return "<selection>" if dialogue else f"i would like the {best}"

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        return {"book": goal.counts["book"]}


def test_an_agent_of_ones_own_is_evaluated_like_any_other(imitator: Path) -> None:
    model = OwnAgent(Polite(), small_task().info)
    result = robustplug.evaluate(model, task=TASK, vicinity="rules", suite=suite(imitator), samples=8)
    clean, *rows = result.attacks
    assert clean.accuracy == 1.0
    for row in rows:
        white_box = any(row.name.startswith(name) for name in WHITE_BOX)
        assert ("no method logits" in row.skipped) == white_box
        if not white_box:
            assert row.measures["target"].count == 8


def test_curves_show_what_attacks_gain_against_their_queries(imitator: Path, tmp_path: Path) -> None:
    path = tmp_path / "queries.toml"
    path.write_text(
        f"""schema = 1
[[row]]
attack = {{ use = "rl-attack", batch = 16, people = 4, speaker = "{imitator}" }}
sweep.attack.epochs = [1, 2]
[[row]]
attack = {{ use = "partner", agent = "{imitator}" }}
"""
    )
    given = ["--suite", path, "--set", "evaluate.samples=8", "--device", "cpu", "--out", tmp_path / "out"]
    done = CliRunner().invoke(query_curves, [str(argument) for argument in (imitator, *given)])
    assert done.exit_code == 0, done.output
    (learned, partner) = json.loads((tmp_path / "out" / "query-curves.json").read_text())["lines"]
    assert (learned["name"], len(learned["points"]), len(partner["points"])) == ("rl-attack", 2, 1)
    one, two = learned["points"]
    assert one["prepared"] < two["prepared"]
    assert partner["points"][0]["prepared"] == 0
    assert "rl-attack: advantage" in done.output
    assert (tmp_path / "out" / "figures" / "query-curves.png").is_file()
