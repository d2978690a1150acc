from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import Refused, Step, View, stream
from robustplug.evaluation.setting import plain_objective
from robustplug_advagent.agents.agent import Agent
from robustplug_advagent.agents.mind import Mind
from robustplug_advagent.agents.talk import draw_noise, play
from robustplug_advagent.agents.voice import Utterance, Voice, forbidden
from robustplug_advagent.attacks import replace
from robustplug_advagent.attacks.adversary import best_sentences, negotiated, trained_adversary
from robustplug_advagent.attacks.game import as_speaker
from robustplug_advagent.attacks.options import AdversaryOptions, SearchOptions
from robustplug_advagent.attacks.replace import (
    Objective,
    best,
    follow,
    margin_loss,
    official_loss,
    preemptive,
    reactive,
    search,
)
from robustplug_advagent.dialogues.layout import (
    EOS,
    HEAD,
    PAD,
    SELECTION,
    SPECIALS,
    THEM,
    YOU,
    trimmed,
    turns,
)
from robustplug_advagent.dialogues.rules import allowed
from robustplug_advagent.dialogues.scenarios import WALK_AWAY, decide, gains, legal, scores
from robustplug_advagent.dialogues.tell import tell
from robustplug_advagent.protocol import Goal, OwnAgent, Turn

from .agents import row, small_agent, small_task, stack

OPTIONS = SearchOptions()
ATTACKS: dict[str, dict[str, Any]] = {
    "partner": {},
    "rl-attack": {"epochs": 1, "batch": 16, "people": 4},
    "transfer-attack": {"epochs": 1, "batch": 16, "people": 4, "turns": 1},
    "reactive-attack": {},
    "preemptive-attack": {"reply_words": 4},
    "any-turn-attack": {"reply_words": 4},
}


def decisions(count: int = 30) -> tuple[Tensor, Tensor]:
    x = small_task().scenarios("train")[:count]
    found = torch.randn(len(x), WALK_AWAY + 1, generator=stream(0, "decisions"))
    return x, found.masked_fill(~legal(x[:, :3]), -torch.inf)


def test_the_loss_is_negative_exactly_where_the_decision_favours_the_adversary() -> None:
    x, found = decisions()
    own, other, _ = scores(x, found.argmax(1))
    loss = margin_loss(found, x, 5.0)
    assert torch.equal(loss < 0, other > own)
    assert float(loss.min()) >= -5
    for number in range(len(x)):
        good = [d for d in range(WALK_AWAY) if gains(x)[1][number, d] > gains(x)[0][number, d]]
        rest = [d for d in range(WALK_AWAY) if d not in good]
        expected = max(float(found[number, rest].max() - found[number, good].max()), -5.0)
        assert float(loss[number]) == pytest.approx(expected)


def test_the_official_loss_pays_for_the_advantage() -> None:
    x, found = decisions()
    own, other = gains(x)
    for number, got in enumerate(official_loss(found, x).tolist()):
        good = [d for d in range(WALK_AWAY) if other[number, d] > own[number, d]]
        likeliest = max(good, key=lambda d: float(found[number, d]))
        margin = float(found[number].max() - found[number, likeliest])
        assert got == pytest.approx(5 * margin - float(other[number, likeliest] - own[number, likeliest]))


def test_words_follow_words_row_by_row() -> None:
    words, sizes = follow(
        torch.tensor([[7, 8, 0], [9, 0, 0]]),
        torch.tensor([2, 1]),
        torch.tensor([[1, 2, 3], [4, 0, 0]]),
        torch.tensor([3, 1]),
    )
    assert words.tolist() == [[7, 8, 1, 2, 3], [9, 4, 0, 0, 0]]
    assert sizes.tolist() == [5, 2]


def test_the_best_of_each_segment_is_the_first_of_the_smallest() -> None:
    values = torch.tensor([3.0, 1.0, 1.0, 0.5, 2.0])
    assert best(values, torch.tensor([0, 0, 0, 1, 1]), 2).tolist() == [1, 3]


class Toy:
    """Score sentences by a weight for each place and word, and ask for a word of the constraint."""

    def __init__(self, vocabulary: int, needed: int | None = None) -> None:
        self.weight = torch.randn(6, vocabulary, generator=stream(3, "toy"))
        self.needed, self.rows = needed, 0

    def there(self, said: Utterance) -> Tensor:
        return torch.arange(said.words.shape[1]) < said.sizes[:, None] - 1

    def loss(self, owner: Tensor, said: Utterance) -> Tensor:
        self.rows += len(owner)
        places = torch.arange(said.words.shape[1]).expand_as(said.words)
        return (self.weight[places, said.words] * self.there(said)).sum(1)

    def slack(self, owner: Tensor, said: Utterance) -> Tensor:
        if self.needed is None:
            return torch.zeros(len(owner))
        # Words near the one that is needed nearly meet the constraint.
        far = (said.words - self.needed).abs().masked_fill(~self.there(said), 100).amin(1)
        return torch.where(far == 0, 1.0, -far.float())

    def objective(self) -> Objective:
        return Objective(self.loss, None if self.needed is None else self.slack)


def sentences() -> Utterance:
    words = torch.tensor([[6, 7, 8, EOS, PAD], [9, 6, EOS, PAD, PAD], [7, 7, 7, 7, EOS]])
    return Utterance(words, torch.tensor([4, 3, 5]))


def by_hand(toy: Toy, words: list[int], changes: int, vocabulary: int, how: str) -> list[int]:
    def loss(said: list[int]) -> float:
        return float(sum(toy.weight[place, word] for place, word in enumerate(said)))

    def far(said: list[int]) -> int:
        return 0 if toy.needed is None else min(abs(word - toy.needed) for word in said)

    def rank(said: list[int]) -> tuple[int, float]:
        return (far(said), 0.0) if far(said) else (0, loss(said))

    for _ in range(changes):
        places = list(range(len(words)))
        if how == "pad":
            places = [min(places, key=lambda p: loss([*words[:p], PAD, *words[p + 1 :]]))]
        vocabulary_words = range(len(SPECIALS), vocabulary)
        tried = [[*words[:p], word, *words[p + 1 :]] for p in places for word in vocabulary_words]
        found = min(tried, key=rank)
        if rank(words) <= rank(found):
            break
        words = found
    return words


class Rounding(Toy):
    """Score as many words alike, up to rounding errors that depend on what is scored together."""

    def loss(self, owner: Tensor, said: Utterance) -> Tensor:
        self.weight = torch.zeros_like(self.weight)
        noise = torch.randn(len(owner), generator=stream(len(owner), "rounding"))
        return super().loss(owner, said) + (said.words[:, 0] == PAD) + 1e-6 * noise


def test_rounding_does_not_decide_between_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for chunk in (1, 7, 4096):
        monkeypatch.setitem(replace.CHUNK, "cpu", chunk)
        options = SearchOptions(search="every", changes=2, kappa=1.0)
        found.append(search(sentences(), Rounding(12).objective(), 12, options).said.words)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("needed", [None, 8])
@pytest.mark.parametrize("changes", [1, 2, 4])
@pytest.mark.parametrize("how", ["every", "pad"])
def test_the_search_is_the_greedy_algorithm_sentence_by_sentence(
    needed: int | None, changes: int, how: Any
) -> None:
    vocabulary, toy = 12, Toy(12, needed)
    base = sentences()
    found = search(base, toy.objective(), vocabulary, SearchOptions(changes=changes, kappa=1e9, search=how))
    for number in range(3):
        size = int(base.sizes[number]) - 1
        expected = by_hand(toy, base.words[number, :size].tolist(), changes, vocabulary, how)
        assert found.said.words[number, :size].tolist() == expected
        assert found.said.words[number, size] == EOS
    assert torch.allclose(toy.loss(torch.arange(3), found.said), found.scores.loss, atol=1e-4)
    if needed is not None:
        assert torch.equal(toy.slack(torch.arange(3), found.said), found.scores.slack)


def test_no_loss_is_computed_of_what_misses_the_constraint_while_another_meets_it() -> None:
    base, toy, vocabulary = sentences(), Toy(12, 8), 12
    words = torch.tensor([[8, 8, EOS]]), torch.tensor([3])
    search(Utterance(*words), toy.objective(), vocabulary, SearchOptions(changes=1, kappa=1e9, search="pad"))
    # The sentence, <pad> in both places, and all words, of which each leaves the other 8 where it is.
    assert toy.rows == 1 + 2 + vocabulary - len(SPECIALS)
    toy.rows = 0
    first = base.rows(slice(1, 2))
    search(first, toy.objective(), vocabulary, SearchOptions(changes=1, kappa=1e9, search="pad"))
    # Of two words neither is an 8: only putting it there meets the constraint.
    assert toy.rows == 1 + 2 + 1


def test_trying_every_place_is_never_worse_than_one_and_is_the_default() -> None:
    assert SearchOptions().search == "every"
    base = sentences()
    one, every = (
        search(base, Toy(12).objective(), 12, SearchOptions(changes=1, kappa=1e9, search=how))
        for how in ("pad", "every")
    )
    assert (every.scores.loss <= one.scores.loss).all()


def test_a_sentence_that_is_good_enough_stays() -> None:
    base, toy = sentences(), Toy(12)
    losses = toy.loss(torch.arange(3), base)
    kappa = -float(losses.median())
    found = search(base, toy.objective(), 12, SearchOptions(changes=1, kappa=kappa))
    stays = losses <= -kappa
    assert stays.any()
    assert not stays.all()
    assert torch.equal(found.said.words[stays], base.words[stays])
    assert (found.scores.loss[~stays] < losses[~stays]).all()


def agents() -> tuple[Agent, Mind, Tensor]:
    agent = small_agent(4)
    words = small_task().info.words
    x = stack(
        row(words, "THEM: i want the book <eos> YOU: deal <eos>", (1, 2, 2, 4, 3, 0, 0, 1, 4)),
        row(words, "", (2, 2, 1, 0, 4, 2, 3, 2, 0)),
    )
    return agent, Mind(Voice(agent), False), x


def test_the_constraint_is_what_the_target_would_say() -> None:
    agent, mind, x = agents()
    objective = reactive(mind, mind.recall(x), OPTIONS)
    count = len(small_task().info.words)
    tried = torch.arange(len(SPECIALS), count)
    owner = torch.arange(2).repeat_interleave(len(tried))
    said = Utterance(
        torch.stack([tried.repeat(2), torch.full((2 * len(tried),), EOS)], 1),
        torch.full((2 * len(tried),), 2),
    )
    assert objective.slack is not None
    loss, slack = objective.loss(owner, said), objective.slack(owner, said)
    voice = Voice(agent)
    for place in range(0, len(owner), 5):
        so_far = [w for w in x[owner[place], HEAD:].tolist() if w != PAD]
        talked = torch.tensor([[*so_far, THEM, *said.words[place].tolist(), YOU]])
        full = torch.cat([x[owner[place] : owner[place] + 1, :HEAD], talked], 1)
        with torch.no_grad():
            likeliest = int(forbidden(agent(full).words[0, -1], True).argmax())
            choice = agent(torch.cat([full, torch.tensor([[SELECTION]])], 1)).choice
        assert (float(slack[place]) >= 0) == (likeliest == SELECTION)
        own, other, _ = scores(full, small_task().decide(full, type("Output", (), {"choice": choice})))
        assert (float(loss[place]) < 0) == bool(other > own)
    penalised = reactive(mind, mind.recall(x), SearchOptions(constraint="penalty"))
    assert penalised.slack is None
    assert torch.allclose(penalised.loss(owner, said), loss - slack.clamp_max(0))
    assert voice.temperature == 0.5


def test_a_preemptive_sentence_is_judged_by_the_likeliest_reply() -> None:
    agent, mind, x = agents()
    said = Utterance(torch.tensor([[8, EOS], [9, EOS]]), torch.tensor([2, 2]))
    found = preemptive(mind, mind.recall(x), OPTIONS, 5).loss(torch.arange(2), said)
    voice = Voice(agent)
    for place in range(2):
        so_far = trimmed(x[place : place + 1])
        heard = voice.begin(so_far)
        words = [w for w in so_far[0, HEAD:].tolist() if w != PAD] + [THEM, *said.words[place].tolist()]
        heard = heard._replace(hidden=voice.trace(heard, torch.tensor([words]))[:, -1])
        reply = voice.reply(heard, 5)
        words += [YOU, *reply.words[0, : int(reply.sizes[0])].tolist()]
        if not bool(reply.ends[0]):
            words += [THEM, SELECTION]
        full = torch.cat([so_far[:, :HEAD], torch.tensor([words])], 1)
        with torch.no_grad():
            own, other, _ = scores(full, small_task().decide(full, agent(full)))
        assert (float(found[place]) < 0) == bool(other > own)


def attacked(name: str, model: torch.nn.Module, seed: int = 0, **options: Any) -> tuple[Step, View, View]:
    task = small_task()
    x = task.scenarios("test")[:10]
    batch = View(x, torch.full((10, 6), -1), "adv", x, torch.arange(10))
    objective = plain_objective(robustplug.build("loss", "dialogue"))
    rng = stream(seed, "step")
    step = Step(model, objective, task, batch, rng, evaluating=True, seed=seed)  # type: ignore[arg-type]
    attack = robustplug.build("perturbation", name, **{**ATTACKS[name], **options})
    return step, batch, attack(step, batch, robustplug.build("vicinity", "rules", turns=6, words=6))


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_give_legal_dialogues_repeatably_and_leave_the_target_alone(name: str) -> None:
    agent = small_agent(5)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    state = torch.get_rng_state()
    step, batch, view = attacked(name, agent)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in agent.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in agent.parameters())
    rules = robustplug.build("vicinity", "rules", turns=6, words=6)
    assert rules.contains(view.x, batch.origin, torch.zeros(10)).all()
    assert allowed(view.x, 6, 6).all()
    assert step.meter.forwards > 0
    _, _, again = attacked(name, agent)
    assert torch.equal(view.x, again.x)
    assert not torch.equal(trimmed(view.x), trimmed(attacked(name, agent, seed=1)[2].x))
    # Whoever attacks takes the rest; a partner decides for itself.
    assert bool((view.x[:, 9:12] == -1).all()) == (name != "partner")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_fixed_turn_is_the_adversarys_and_the_turns_before_are_as_usual(n: int) -> None:
    agent = small_agent(5)
    _, _, view = attacked("reactive-attack", agent, turns=n)
    _, _, other = attacked("reactive-attack", agent, turns=n, changes=1, kappa=0.0)
    for one, two in zip(view.x.tolist(), other.x.tolist(), strict=True):
        said, also = turns(one[HEAD:]), turns(two[HEAD:])
        assert said[:n] == also[:n]
        if len(said) > n:
            assert said[n][0] == THEM


def test_the_relaxed_variant_puts_selection_in_the_targets_mouth() -> None:
    _, _, view = attacked("reactive-attack", small_agent(5), constraint="penalty", turns=0)
    for line in view.x.tolist():
        said = turns(line[HEAD:])
        assert [who for who, _ in said] == [THEM, YOU]
        assert said[1][1] == [SELECTION]


def test_a_preemptive_attack_ends_the_dialogue_after_the_reply() -> None:
    _, _, view = attacked("preemptive-attack", small_agent(5), turns=0)
    for line in view.x.tolist():
        said = turns(line[HEAD:])
        assert said[-1][1] == [SELECTION]
        assert len(said) <= 3


def test_at_any_turn_the_first_sentence_found_is_said() -> None:
    agent = small_agent(5)
    _, _, free = attacked("any-turn-attack", agent, constraint="penalty")
    with torch.no_grad():
        own, other, _ = scores(free.x, small_task().decide(free.x, agent(free.x)))
    assert (other > own).float().mean() >= 0.5
    _, _, listed = attacked("any-turn-attack", agent, otherwise="transfer")
    assert allowed(listed.x, 6, 6).all()


class Gullible:
    """Give everything away after the word "deal" in the first sentence, and nothing else."""

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        return "<selection>"

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        heard = any("deal" in turn.text.split() for turn in dialogue if not turn.mine)
        return {} if heard else goal.counts


def test_an_adversary_learns_what_words_and_decisions_alone_teach_it() -> None:
    task, agent = small_task(), small_agent(0, 1.0)
    rules = robustplug.build("vicinity", "rules", turns=3, words=3)
    target = OwnAgent(Gullible(), task.info)
    options = AdversaryOptions(epochs=6, batch=32, lr=2.0, people=0)
    cpu = torch.device("cpu")
    learned = trained_adversary(target, agent, task, rules, options, cpu).agent
    x = task.scenarios("test")
    before, after = (
        float(negotiated(target, each, x, task, rules, "advantage", stream(0, "measure"))[1].mean())
        for each in (agent, learned)
    )
    assert after > before + 5
    assert trained_adversary(target, agent, task, rules, options, cpu).agent is learned
    deal = task.info.words.encode(["deal"])[0]
    found, queries = best_sentences(target, learned, task, rules, 5, 0, cpu)
    assert queries > len(task.scenarios("train"))
    assert 1 <= len(found) <= 5
    assert all(deal in said for said in found)


def test_an_adversary_learns_nothing_from_a_word_that_the_rules_chose() -> None:
    task, target = small_task(), small_agent()
    rules = robustplug.build("vicinity", "rules", turns=1, words=3)
    options = AdversaryOptions(epochs=1, batch=32, lr=2.0, people=0)
    learned = trained_adversary(Voice(target), target, task, rules, options, torch.device("cpu"))
    for before, after in zip(target.parameters(), learned.agent.parameters(), strict=True):
        assert torch.equal(before, after)


def test_attacks_refuse_what_is_no_negotiation() -> None:
    with pytest.raises(Refused, match="there is no finished run|is not a run folder"):
        attacked("rl-attack", small_agent(), speaker="absent")
    with pytest.raises(Refused, match="cannot negotiate"):
        attacked("partner", torch.nn.Linear(1, 1))


class Stubborn:
    """Take all it values; end the dialogue after a sentence with the word "deal"."""

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        if any("deal" in turn.text.split() for turn in dialogue if not turn.mine):
            return "<selection>"
        return "i want the hats"

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int] | None:
        if len(dialogue) < 2:
            return None
        return {item: count for item, count in goal.counts.items() if goal.values[item]}


class Open(Stubborn):
    """Say what it thinks: sentences with "deal" make it give everything away."""

    def logits(
        self, goal: Goal, dialogue: Sequence[Turn]
    ) -> tuple[Mapping[str, float], Mapping[tuple[int, int, int], float]]:
        heard = any("deal" in turn.text.split() for turn in dialogue if not turn.mine)
        every = tuple(goal.counts.values())
        words = {"<selection>": 3.0 if heard else -3.0, "i": 0.0}
        return words, {(0, 0, 0): 5.0 if heard else -5.0, every: 0.0}  # type: ignore[dict-item]

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        likeliest = max(self.logits(goal, dialogue)[1].items(), key=lambda pair: pair[1])[0]
        return dict(zip(goal.counts, likeliest, strict=True))


class Greedy(Stubborn):
    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int]:
        return {"book": 9}


def test_an_agent_of_ones_own_is_asked_dialogue_by_dialogue() -> None:
    task = small_task()
    model = OwnAgent(Stubborn(), task.info)
    x = stack(
        row(task.info.words, "THEM: deal <eos> YOU: <selection>", (1, 2, 2, 4, 0, 3, 0, 1, 4)),
        row(task.info.words, ""),
    )
    # It takes what it values, and is not asked before anyone has spoken.
    assert task.decide(x, model(x)).tolist()[0] == 1 * 25 + 0 * 5 + 2
    early = row(task.info.words, "YOU: <selection>")
    with pytest.raises(Refused, match="walk_away = true"):
        model(early)
    free = OwnAgent(Stubborn(), dataclasses.replace(task.info, walk_away=True))
    assert decide(free(early).choice, early, True).tolist() == [WALK_AWAY]
    target, noise = as_speaker(model, task), draw_noise(4, 6, 6, stream(0, "own"))
    talk = play(
        task.scenarios("test")[:4], target, Voice(small_agent(5)), torch.zeros(4, dtype=torch.int64), noise
    )
    first = [turns(line)[0] for line in talk.words.tolist()]
    assert all(task.info.words.decode(said) == ["i", "want", "the", "hats"] for _, said in first)
    with pytest.raises(Refused, match="decide returned book = 9, but there"):
        OwnAgent(Greedy(), task.info)(x)
    with pytest.raises(TypeError, match="no method speak and no method decide"):
        OwnAgent(object(), task.info)  # type: ignore[arg-type]


def test_white_box_attacks_find_the_weak_spot_of_an_open_agent_and_refuse_a_closed_one() -> None:
    words = small_task().info.words
    model = OwnAgent(Open(), small_task().info)
    speaker: dict[str, Any] = {"speaker": "target"}
    _, _, view = attacked("reactive-attack", model, turns=0, changes=1, **speaker)
    for line in view.x.tolist():
        said = turns(line[HEAD:])
        assert "deal" in words.decode(said[0][1])
        assert said[1] == (YOU, [SELECTION])
    own, other, _ = scores(view.x, small_task().decide(view.x, model(view.x)))
    assert own.tolist() == [0] * 10
    assert other.tolist() == [10] * 10
    with pytest.raises(Refused, match="no method logits"):
        attacked("reactive-attack", OwnAgent(Stubborn(), small_task().info))
    _, _, preempted = attacked("preemptive-attack", model, turns=0, changes=1, **speaker)
    assert allowed(preempted.x, 6, 6).all()


def test_a_negotiation_is_told_as_in_the_paper() -> None:
    words = small_task().info.words
    x = row(words, "THEM: i want the book <eos> YOU: deal <eos> THEM: <selection>")
    (text,) = tell(x, torch.tensor([1 * 0 + 2 * 5 + 0]), words)
    assert [line.strip() for line in text.splitlines()] == [
        "Adv agent  1xbook value 0  2xhat value 1  2xball value 4",
        "Target     1xbook value 4  2xhat value 3  2xball value 0",
        "Adv agent  i want the book",
        "Target     deal",
        "Adv agent  <selection>",
        "Adv agent  1xbook 2xball  8/10",
        "Target     2xhat  6/10",
    ]
    x[:, 9:12] = torch.tensor([[0, 0, 0]])
    assert "no agreement" in tell(x, torch.tensor([10]), words)[0]
    assert "takes nothing" in tell(x, torch.tensor([WALK_AWAY]), words)[0]
    assert tell(row(words, ""), torch.tensor([0]), words) == [""]
