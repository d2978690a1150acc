"""Agents of the user's own: what they return is checked, and words of their own are theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Refused
from robustplug_advagent.agents.talk import play
from robustplug_advagent.agents.voice import Voice
from robustplug_advagent.dialogues.layout import FREE, HEAD, UNKNOWN, known
from robustplug_advagent.dialogues.rules import allowed
from robustplug_advagent.dialogues.tell import tell
from robustplug_advagent.protocol import Goal, OwnAgent, Turn

from .agents import TASK, row, small_agent, small_task

GOAL = Goal({"book": 1, "hat": 2, "ball": 2}, {"book": 4, "hat": 3, "ball": 0})
TALK = (Turn(False, "deal"), Turn(True, "<selection>"))


class Odd:
    """Return what a test wants."""

    def __init__(self, spoken: Any = "deal", decided: Any = None, scored: Any = None) -> None:
        self.spoken, self.decided, self.scored = spoken, decided, scored

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> Any:
        return self.spoken

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Any:
        return self.decided

    def logits(self, goal: Goal, dialogue: Sequence[Turn]) -> Any:
        return self.scored


DECISIONS = [
    (None, "walk_away = true"),
    ([1, 2, 2], r"decide returned \[1, 2, 2\]"),
    ("book", "decide returned 'book'"),
    ({"books": 1}, "the item 'books'"),
    ({3: 1}, "the item 3"),
    ({"book": 0.5}, "book = 0.5: return a whole number"),
    ({"book": "1"}, "book = '1'"),
    ({"hat": None}, "hat = None"),
    ({"hat": True}, "hat = True"),
    ({"hat": 3}, "hat = 3, but there are 2"),
    ({"hat": -1}, "hat = -1, but there are 2"),
]
TURNS = [
    (None, "speak returned None"),
    (["deal"], r"speak returned \['deal'\]"),
    (b"deal", "speak returned b'deal'"),
    ("deal <eos>", "the word <eos>"),
    ("YOU: deal", "the word YOU:"),
    ("<pad>", "the word <pad>"),
]
SCORES = [
    (None, "logits returned None"),
    (({}, {}, {}), "scores of words, and of allocations"),
    (([], {}), r"logits returned \[\] for the words"),
    (({}, 3), "logits returned 3 for the allocations"),
    (({}, {}), "no score of any allocation"),
    (({"deal": math.nan}, {(0, 0, 0): 1.0}), "for 'deal' the score nan"),
    (({"deal": "high"}, {(0, 0, 0): 1.0}), "the score 'high'"),
    (({"deal": None}, {(0, 0, 0): 1.0}), "the score None"),
    (({}, {(0, 0, 0): math.inf}), "the score inf"),
    (({"nonsense": 1.0}, {(0, 0, 0): 1.0}), "a score of 'nonsense'"),
    (({4: 1.0}, {(0, 0, 0): 1.0}), "a score of 4"),
    (({}, {(0, 0): 1.0}), r"the allocation \(0, 0\)"),
    (({}, {7: 1.0}), "the allocation 7"),
    (({}, {(0, 0.5, 0): 1.0}), "hat = 0.5"),
    (({}, {(2, 0, 0): 1.0}), "book = 2 in an allocation, but there are 1"),
]


@pytest.mark.parametrize(("decided", "why"), DECISIONS)
def test_a_decision_is_refused_with_the_field_and_the_value(decided: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        OwnAgent(Odd(decided=decided), small_task().info).decision(GOAL, TALK)


@pytest.mark.parametrize(("spoken", "why"), TURNS)
def test_a_turn_is_refused_with_its_value(spoken: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        OwnAgent(Odd(spoken), small_task().info).words_of(GOAL, (), 9)


@pytest.mark.parametrize(("scored", "why"), SCORES)
def test_scores_are_refused_with_the_field_and_the_value(scored: Any, why: str) -> None:
    x = row(small_task().info.words, "")
    glass = OwnAgent(Odd(scored=scored), small_task().info).glass()
    memory, owner = glass.recall(x), torch.tensor([0])
    tail = torch.tensor([small_task().info.words.encode(["THEM:", "deal", "<eos>"])])
    with pytest.raises(Refused, match=why):
        glass.judge(memory, owner, tail, torch.tensor([3]))


def test_whole_numbers_of_any_type_are_pieces() -> None:
    agent = OwnAgent(Odd(decided={"hat": torch.tensor(2), "book": 1}), small_task().info)
    assert agent.decision(GOAL, TALK) == 25 + 10


class English:
    """Speak freely, expect to read the same later, and give everything away."""

    said = "Splendid weather, isn't it?"

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        own = [turn.text for turn in dialogue if turn.mine]
        assert all(text == self.said for text in own)
        return "<selection>" if len(own) > 1 else self.said

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        assert all(turn.text in (self.said, "<selection>") for turn in dialogue if turn.mine)
        return {}


def test_words_of_ones_own_keep_their_numbers_and_others_hear_unknown_words() -> None:
    task, agent = small_task(), small_agent(5)
    target = OwnAgent(English(), task.info)
    x, noise = task.scenarios("test")[:4], torch.rand(4, 6, 7, generator=torch.Generator().manual_seed(0))
    talk = play(x, target, Voice(agent), torch.zeros(4, dtype=torch.int64), noise)
    rows = talk.rows_so_far()
    assert (rows[:, HEAD:] >= FREE).any()
    assert not allowed(rows, 6, 6).any()
    assert allowed(rows, 6, 6, unknown=True).all()
    said = tell(rows, torch.zeros(4, dtype=torch.int64), task.info.words)
    assert all(English.said in text for text in said)
    # An agent of the vocabulary reads such words as <unk>, wherever it reads.
    plain = torch.cat([rows[:, :HEAD], known(rows[:, HEAD:])], 1)
    assert (plain[:, HEAD:] == UNKNOWN).any()
    for one, other in zip(agent(rows), agent(plain), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(agent.next_words(rows), agent.next_words(plain))


def test_a_row_of_discarded_dialogues_is_invalid_unless_their_words_are_allowed() -> None:
    model = OwnAgent(English(), small_task().info)
    attack = {"use": "partner", "agent": "target"}
    with pytest.warns(UserWarning, match=r"partner is invalid: 24 of 24 results broke the rules"):
        result = robustplug.evaluate(model, task=TASK, vicinity="rules", attacks=[attack])
    row = result.attacks[-1]
    assert row.invalid
    assert math.isnan(row.accuracy)
    assert row.right == ()
    assert (row.attempted, row.rejected) == (24, 24)
    free = {"use": "rules", "unknown": True}
    row = robustplug.evaluate(model, task=TASK, vicinity=free, attacks=[attack]).attacks[-1]
    assert not row.skipped
    assert row.rejected == 0
    assert English.said in row.example
