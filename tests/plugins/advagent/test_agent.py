from __future__ import annotations

import pytest
import torch

from robustplug.api import TaskInfo, stream
from robustplug_advagent.agents.agent import GROUP, Agent
from robustplug_advagent.agents.mind import Mind
from robustplug_advagent.agents.talk import draw_noise, play
from robustplug_advagent.agents.voice import Utterance, Voice, draw, forbidden
from robustplug_advagent.dialogues.layout import (
    COUNTS,
    HEAD,
    PAD,
    SELECTION,
    THEM,
    YOU,
    lengths,
    swapped,
    trimmed,
)
from robustplug_advagent.dialogues.scenarios import decision_scores
from robustplug_advagent.options import AgentOptions

from .agents import small_agent, small_task


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def dialogues(count: int = 40) -> torch.Tensor:
    x, _ = small_task().dialogues("train")
    return trimmed(x[:count])


def test_padding_and_the_rest_of_the_batch_change_nothing() -> None:
    agent, x = small_agent(), dialogues(GROUP + 8)
    with torch.no_grad():
        together = agent(torch.nn.functional.pad(x, (0, 9), value=PAD))
        decided = agent.decision(x)
        for row in range(0, len(x), 7):
            alone = agent(trimmed(x[row : row + 1]))
            size = int(lengths(x)[row])
            assert near(together.words[row, :size], alone.words[0])
            assert near(together.choice[row], alone.choice[0])
            assert near(decided[row], alone.choice[0])


def test_the_agent_does_not_see_what_the_other_side_is_given() -> None:
    agent, x = small_agent(), dialogues()
    other = x.clone()
    other[:, 6:12] = 3
    mine = x.clone()
    mine[:, 3] = (mine[:, 3] + 1) % 5
    with torch.no_grad():
        assert torch.equal(agent(x).choice, agent(other).choice)
        assert not torch.equal(agent(x).choice, agent(mine).choice)
        assert torch.equal(agent(x).words, agent(other).words)


def test_the_agent_carries_its_words() -> None:
    agent = small_agent()
    assert agent.words() == small_task().info.words
    with pytest.raises(ValueError, match="needs a task with words"):
        Agent(AgentOptions(), info=TaskInfo(sizes={"train": 1}))


def test_a_voice_hears_and_speaks_as_its_agent_reads() -> None:
    agent, x = small_agent(), dialogues()
    voice = Voice(agent)
    with torch.no_grad():
        expected = agent(x).words
    hidden = voice.trace(voice.begin(x), x[:, HEAD:])
    there = (x[:, HEAD:] != PAD)[..., None]
    got = torch.stack([voice.next_word(voice.begin(x)._replace(hidden=h)) for h in hidden.unbind(1)], 1)
    assert near(got * there, expected * there)
    # Turns of different lengths: what is remembered is that after each one's own last word.
    said = Utterance(x[:, HEAD + 1 : HEAD + 6], torch.arange(len(x)) % 5 + 1)
    heard = voice.hear(voice.begin(x), said, THEM)
    for row in range(0, len(x), 9):
        words = torch.cat([torch.tensor([THEM]), said.words[row, : int(said.sizes[row])]])[None]
        alone = voice.trace(voice.begin(x[row : row + 1]), words)[:, -1]
        assert near(heard.hidden[row], alone[0])


def test_words_are_drawn_from_the_distribution_by_their_noise_alone() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    noise = (torch.arange(4000) + 0.5) / 4000
    drawn = draw(logits.expand(4000, -1), noise, 0.5)
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(0), atol=1e-3)
    last = draw(torch.tensor([[0.0, -torch.inf]]), torch.tensor([1 - 2**-24]), 1.0)
    assert last.tolist() == [0]


def test_only_a_first_word_may_be_selection_and_only_a_later_one_eos() -> None:
    logits = torch.zeros(2, 8)
    allowed = forbidden(logits, torch.tensor([True, False])).isfinite()
    assert allowed.nonzero().tolist() == [[0, 2], [0, 6], [0, 7], [1, 1], [1, 6], [1, 7]]
    assert torch.equal(forbidden(logits, True)[0].isfinite(), allowed[0])


@pytest.mark.parametrize("grouping", [1, 5])
def test_dialogues_rolled_out_together_are_those_rolled_out_one_by_one(grouping: int) -> None:
    task, rng = small_task(), stream(0, "play")
    x = task.scenarios("train")[:20]
    target, other = Voice(small_agent(1)), Voice(small_agent(2))
    noise, first = draw_noise(20, 6, 6, rng), torch.randint(2, (20,), generator=rng)
    whole = play(x, target, other, first, noise).rows_so_far()
    assert not torch.equal(whole[0], whole[1])
    for start in range(0, 20, grouping):
        part = slice(start, start + grouping)
        alone = play(x[part], target, other, first[part], noise[part]).rows_so_far()
        assert torch.equal(trimmed(whole[part]), trimmed(alone))


def test_the_one_who_begins_begins_and_the_last_turn_ends_the_dialogue() -> None:
    x = small_task().scenarios("train")[:8]
    voice = Voice(small_agent(3))
    first = torch.arange(8) % 2
    talk = play(x, voice, voice, first, draw_noise(8, 3, 4, stream(0, "turns")))
    words = talk.words
    assert torch.equal(words[:, 0], torch.where(first == 0, YOU, THEM))
    assert not talk.open.any()
    ends = words.gather(1, talk.sizes[:, None] - 1)[:, 0]
    assert (ends == SELECTION).all()
    assert ((words == YOU) | (words == THEM)).sum(1).max() <= 3


def test_a_mind_judges_continuations_as_the_agent_judges_whole_dialogues() -> None:
    agent, x = small_agent(), dialogues(30)
    mind = Mind(Voice(agent), walk_away=True)
    sizes = lengths(x)
    cut = (sizes * 0.6).long()
    cut[:3] = 0
    places = torch.arange(x.shape[1] - HEAD)
    before = torch.cat([x[:, :HEAD], x[:, HEAD:].masked_fill(places >= cut[:, None], PAD)], 1)
    memory = mind.recall(trimmed(before))
    owner = torch.arange(30).repeat(2).flip(0)
    tail = torch.zeros(60, int((sizes - cut).max()), dtype=torch.int64)
    for row, of in enumerate(owner.tolist()):
        tail[row, : int(sizes[of] - cut[of])] = x[of, HEAD + int(cut[of]) : HEAD + int(sizes[of])]
    with torch.no_grad():
        reading = agent(x)
    expected = decision_scores(reading.choice, x[:, COUNTS], True)[owner]
    got = mind.judge(memory, owner, tail, (sizes - cut)[owner])
    legal = expected.isfinite()
    assert torch.equal(got.isfinite(), legal)
    assert near(got[legal], expected[legal])
    after = mind.next_word(memory, owner, tail, (sizes - cut)[owner])
    assert near(after, reading.words[owner, sizes[owner] - 1])


def test_the_other_side_of_a_dialogue_is_seen_swapped() -> None:
    x = dialogues(4)
    assert torch.equal(swapped(swapped(x)), x)
