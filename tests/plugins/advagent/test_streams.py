"""Dialogues that run on independently are those that take turns together, with far fewer products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robustplug.api import stream
from robustplug_advagent.agents.talk import ADVERSARY, draw_noise, play
from robustplug_advagent.agents.voice import Utterance, Voice

from .agents import small_agent, small_task


def drawn(count: int, turns: int = 6, words: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = stream(4, "streams")
    first = torch.randint(2, (count,), generator=rng)
    return small_task().scenarios("test")[:count], first, draw_noise(count, turns, words, rng)


@pytest.mark.parametrize(("turns", "words"), [(6, 7), (1, 1), (2, 1), (20, 3)])
def test_dialogues_are_those_of_turns_taken_together(turns: int, words: int) -> None:
    # Of these scales one agent ends its dialogues early, and the other speaks until its turns run out.
    target, adversary = Voice(small_agent(1, 3.0)), Voice(small_agent(5))
    x, first, noise = drawn(24, turns, words)

    def usual(talk: Any, rows: torch.Tensor, own: torch.Tensor) -> Utterance:
        return adversary.speak(talk.heard[ADVERSARY].rows(rows), own)

    streamed = play(x, target, adversary, first, noise)
    together = play(x, target, adversary, first, noise, usual)
    assert torch.equal(streamed.rows_so_far(), together.rows_so_far())
    assert torch.equal(streamed.sizes, together.sizes)
    assert streamed.asked == together.asked
    assert not streamed.open.any()
    if turns == 20:
        assert len(set(streamed.sizes.tolist())) > 4


def test_many_dialogues_take_as_many_products_as_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    target, adversary = Voice(small_agent(1, 3.0)), Voice(small_agent(5))
    x, first, noise = drawn(24)
    products, after = [0], Voice.after

    def counted(voice: Voice, *arguments: Any) -> Any:
        products[0] += 1
        return after(voice, *arguments)

    monkeypatch.setattr(Voice, "after", counted)
    longest = int(play(x, target, adversary, first, noise).sizes.max())
    batched, products[0] = products[0], 0
    for row in range(len(x)):
        part = slice(row, row + 1)
        play(x[part], target, adversary, first[part], noise[part])
    assert batched == 2 * longest
    assert products[0] > 10 * batched
