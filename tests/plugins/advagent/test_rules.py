from __future__ import annotations

from typing import Any

import pytest
import torch

import robustplug
from robustplug.api import Refused, stream
from robustplug_advagent.agents.talk import NOTHING
from robustplug_advagent.dialogues.layout import EOS, HEAD, PAD, THEM, YOU
from robustplug_advagent.dialogues.rules import allowed, drawn_words, own_words

from .agents import row, small_task

LEGAL = [
    "YOU: <selection>",
    "THEM: deal <eos> YOU: <selection>",
    "YOU: i want the book <eos> THEM: deal <eos> YOU: <selection>",
    "YOU: <eos> THEM: <selection>",
]
ILLEGAL = {
    "does not end": "YOU: deal <eos>",
    "no speaker": "deal <eos> YOU: <selection>",
    "twice in a row": "YOU: deal <eos> YOU: <selection>",
    "no <eos>": "YOU: deal THEM: <selection>",
    "words after <eos>": "YOU: deal <eos> deal <eos> THEM: <selection>",
    "<selection> among words": "YOU: deal <selection>",
    "goes on": "YOU: <selection> THEM: <selection>",
    "unknown word": "YOU: nonsense <eos> THEM: <selection>",
    "too many words": "YOU: i want the book and the hats <eos> THEM: <selection>",
    "too many turns": "YOU: deal <eos> THEM: deal <eos> YOU: deal <eos> THEM: <selection>",
}


@pytest.mark.parametrize("text", LEGAL)
def test_dialogues_by_the_rules_are_allowed(text: str) -> None:
    x = row(small_task().info.words, text)
    assert allowed(x, 3, 6).tolist() == [True]
    assert allowed(torch.nn.functional.pad(x, (0, 4), value=PAD), 3, 6).tolist() == [True]


@pytest.mark.parametrize("why", ILLEGAL)
def test_dialogues_against_the_rules_are_not(why: str) -> None:
    assert allowed(row(small_task().info.words, ILLEGAL[why]), 3, 6).tolist() == [False]


def test_a_gap_in_the_words_is_not_allowed() -> None:
    x = row(small_task().info.words, LEGAL[2])
    x[0, HEAD + 2] = PAD
    assert not allowed(x, 3, 6).any()


@pytest.mark.parametrize(
    ("claim", "legal"), [((1, 2, 0), True), ((NOTHING,) * 3, True), ((2, 0, 0), False), ((-1, 0, 0), False)]
)
def test_nobody_claims_more_than_there_is(claim: tuple[int, ...], legal: bool) -> None:
    x = row(small_task().info.words, LEGAL[0])
    x[0, 9:12] = torch.tensor(claim)
    assert allowed(x, 3, 6).tolist() == [legal]


def test_the_vicinity_holds_dialogues_about_the_same_scenario_only() -> None:
    rules = robustplug.build("vicinity", "rules", turns=3, words=6)
    words = small_task().info.words
    origin = row(words, "")
    radius = torch.zeros(1)
    said = row(words, LEGAL[1])
    assert rules.contains(said, origin, radius).tolist() == [True]
    assert rules.contains(origin, origin, radius).tolist() == [True]
    richer = said.clone()
    richer[0, 6] = 9
    assert rules.contains(richer, origin, radius).tolist() == [False]
    human = row(words, ILLEGAL["too many words"])
    assert rules.contains(human, human, radius).tolist() == [True]
    assert rules.norm is None
    moves: dict[str, tuple[Any, ...]] = {
        "project": (said, origin, radius),
        "steepest": (said.float(),),
        "random_point": (origin, radius, stream(0, "point")),
    }
    for name, arguments in moves.items():
        with pytest.raises(Refused, match="made for negotiations"):
            getattr(rules, name)(*arguments)


def test_own_words_are_those_after_you() -> None:
    x = row(small_task().info.words, LEGAL[2])
    own = own_words(x[:, HEAD:])[0].tolist()
    text = LEGAL[2].split()
    mine = [word for word, is_own in zip(text, own, strict=True) if is_own]
    assert mine == ["i", "want", "the", "book", "<eos>", "<selection>"]
    assert not own_words(torch.tensor([[PAD, PAD]])).any()


def test_what_the_rules_put_into_a_mouth_was_not_drawn() -> None:
    x = row(small_task().info.words, LEGAL[2])
    words = x[:, HEAD:]
    own, turns = own_words(words), int(((words == YOU) | (words == THEM)).sum())
    assert torch.equal(drawn_words(words, turns + 1, 9), own), "one more turn was possible"
    last = torch.zeros_like(own)
    last[0, int((words[0] != PAD).sum()) - 1] = True
    assert torch.equal(drawn_words(words, turns, 9), own & ~last), "turns ran out"
    assert torch.equal(drawn_words(words, turns + 1, 4), own & (words != EOS)), "words ran out"
