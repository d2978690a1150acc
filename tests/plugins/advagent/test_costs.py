"""What an attack costs, what it depends on, and what it must not depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import AttackResult, Refused
from robustplug.recipe.errors import RecipeError
from robustplug_advagent.agents.voice import Voice
from robustplug_advagent.attacks.adversary import trained_adversary
from robustplug_advagent.attacks.options import AdversaryOptions
from robustplug_advagent.commands import curves
from robustplug_advagent.protocol import Goal, OwnAgent, Turn

from .agents import RULES, TASK, small_agent, small_task

CPU = torch.device("cpu")
LEARNED = {"epochs": 1, "batch": 16, "people": 4}
ATTACKS: list[dict[str, Any]] = [
    {"use": "partner"},
    {"use": "rl-attack", **LEARNED},
    {"use": "transfer-attack", **LEARNED, "turns": 1},
    {"use": "reactive-attack", "changes": 1, "turns": 1},
    {"use": "preemptive-attack", "changes": 1, "reply_words": 4, "turns": 1},
    {"use": "any-turn-attack", "changes": 1, "reply_words": 4, "otherwise": "transfer", **LEARNED},
]


def rows(model: Any, attacks: Sequence[Mapping[str, Any]], **options: Any) -> list[AttackResult]:
    suite = {"schema": 1, "name": "costs", "row": [{"attack": attack} for attack in attacks]}
    given = {"task": TASK, "vicinity": RULES, "samples": 8, **options}
    found = robustplug.evaluate(model, suite=suite, **given).attacks[1:]
    assert not any(row.skipped for row in found), [row.skipped for row in found]
    return [dataclasses.replace(row, seconds=0.0) for row in found]


@pytest.mark.slow
def test_no_result_depends_on_the_batch_size() -> None:
    agent = small_agent(5)
    expected = rows(agent, ATTACKS, batch_size=8)
    assert len({row.example for row in expected}) > 3
    assert rows(agent, ATTACKS, batch_size=1) == expected
    assert rows(agent, ATTACKS[:3], batch_size=3) == expected[:3]
    assert rows(agent, ATTACKS[:1], batch_size=8, seed=1) != expected[:1]


class Counting:
    """Ask for the hats until the other side has spoken twice; count every call."""

    def __init__(self) -> None:
        self.calls = 0
        self.generous = False

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        self.calls += 1
        return "<selection>" if sum(not turn.mine for turn in dialogue) > 1 else "i want the hats"

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        self.calls += 1
        return {} if self.generous else {"hat": goal.counts["hat"]}


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a small agent stand for the run that speaks for adversaries."""
    agent = small_agent(5)
    for module in ("attacks.adversary", "attacks.game"):
        monkeypatch.setattr(f"robustplug_advagent.{module}.speaking", lambda *_: agent)
    return "speaker"


@pytest.mark.parametrize("batch_size", [3, 8])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_question_to_the_target_counts_once(number: int, batch_size: int, speaker: str) -> None:
    agent = Counting()
    attack = {**ATTACKS[number], ("speaker" if number else "agent"): speaker}
    (row,) = rows(OwnAgent(agent, small_task().info), [attack], batch_size=batch_size)
    assert row.forwards * 8 == pytest.approx(agent.calls)
    # The training: a dialogue about each scenario, with a turn of the target and its decision at least.
    assert (row.prepared >= 2 * TASK["train_scenarios"]) == (number > 0)
    assert row.prepared < row.forwards * 8


def test_the_cost_of_an_adversary_is_part_of_every_attack_with_it_cached_or_not() -> None:
    agent = small_agent(6)
    learned = rows(agent, [ATTACKS[1], ATTACKS[1], ATTACKS[2]])
    assert learned[0].prepared == learned[1].prepared > 0
    # To find sentences, the adversary negotiates again.
    assert learned[2].prepared > learned[0].prepared


def adversary(model: Any, options: AdversaryOptions, task: Any = None, **rules: Any) -> Any:
    rules = {"turns": 3, "words": 3, **rules}
    target = model if isinstance(model, OwnAgent) else Voice(model)
    found = robustplug.build("vicinity", "rules", **rules)
    return trained_adversary(target, model, task or small_task(), found, options, CPU)


def test_an_adversary_is_kept_for_the_same_target_and_data_only() -> None:
    agent, options = small_agent(7), AdversaryOptions(epochs=1, batch=16, people=4)
    first = adversary(agent, options)
    assert adversary(agent, options) is first
    assert adversary(small_agent(7), options) is first
    plain = {key: value for key, value in TASK.items() if key != "use"}
    for changed in ({"scenario_seed": 1}, {"train_scenarios": 31}, {"walk_away": True}):
        other = robustplug.build("task", TASK["use"], **{**plain, **changed})
        if other.info.words == small_task().info.words:
            assert adversary(agent, options, other) is not first
    assert adversary(agent, options, turns=4) is not first
    assert adversary(agent, dataclasses.replace(options, seed=1)) is not first
    with torch.no_grad():
        agent.decoder.bias.add_(1)
    assert adversary(agent, options) is not first


def test_an_adversary_learns_anew_from_an_agent_of_ones_own_that_may_have_changed(speaker: str) -> None:
    agent, options = Counting(), AdversaryOptions(epochs=1, batch=16, people=0, speaker=speaker)
    model = OwnAgent(agent, small_task().info)
    first = adversary(model, options)
    agent.generous = True
    second = adversary(model, options)
    assert first is not second
    assert first.curve[-1][1] < second.curve[-1][1]


def test_a_curve_says_what_was_gained_after_how_many_queries() -> None:
    learned = adversary(small_agent(7), AdversaryOptions(epochs=2, batch=16, people=0))
    asked = [queries for queries, _ in learned.curve]
    assert len(asked) == 4
    assert asked == sorted(set(asked))
    assert asked[-1] == learned.queries


def test_more_people_than_there_are_are_refused_in_a_sentence() -> None:
    suite = {"schema": 1, "name": "costs", "row": [{"attack": {"use": "rl-attack", "people": 129}}]}
    result = robustplug.evaluate(small_agent(5), suite=suite, task=TASK, vicinity=RULES, samples=2)
    assert result.attacks[1].skipped == "people = 129 is more than the 128 training dialogues: lower it"
    recipe = {
        "name": "x",
        "task": {**TASK, "learn_from": "scenarios"},
        "model": {"use": "negotiator"},
        "method": {"use": "self-play", "people": 129, "vicinity": RULES},
    }
    with pytest.raises((RecipeError, Refused), match="people = 129 is more than the 128"):
        robustplug.train(recipe)


def test_rows_that_differ_in_their_budget_are_points_of_one_curve(tmp_path: Any) -> None:
    agent = small_agent(5)
    asked: list[dict[str, Any]] = [
        {"use": "reactive-attack", "changes": 2, "turns": 1},
        {"use": "reactive-attack", "changes": 1, "turns": 1},
        {"use": "reactive-attack", "changes": 1, "turns": 1, "search": "pad"},
        {"use": "partner"},
    ]
    found = curves(rows(agent, asked), "advantage")
    assert [len(line["points"]) for line in found] == [2, 1, 1]
    one, two = found[0]["points"]
    assert one["queries"] < two["queries"]
    assert one["low"] <= one["mean"] <= one["high"]
    # Every word in every place costs more queries than the words of one place.
    assert found[1]["points"][0]["queries"] < one["queries"]
    assert curves([], "advantage") == []
