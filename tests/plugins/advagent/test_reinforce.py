from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import robustplug
from robustplug.api import Feed, Refused, Step, View, prepare, stream, training_loss
from robustplug.recipe.errors import RecipeError
from robustplug_advagent.agents.loss import Target, outcome_loss, said_equally, word_loss
from robustplug_advagent.agents.policy import (
    Baseline,
    discounts,
    official_reward,
    policy_words,
    without_dropout,
)
from robustplug_advagent.agents.reinforce import Reinforce, other_side
from robustplug_advagent.agents.voice import draw
from robustplug_advagent.dialogues.layout import DISAGREE, HEAD, SPECIALS, YOU
from robustplug_advagent.dialogues.rules import own_words
from robustplug_advagent.dialogues.scenarios import WALK_AWAY, gains, legal, pieces
from robustplug_advagent.dialogues.task import NegotiationTask

from .agents import RULES, small_agent, small_task


def test_the_gradient_on_a_toy_of_two_actions_is_the_closed_form() -> None:
    """E[∇L] = −Σ_a π(a)·(r(a) − µ)·∇ log π(a), with π = softmax(z/T) over two words."""
    first, temperature, rewards = len(SPECIALS), 0.5, torch.tensor([1.0, 4.0])
    z = torch.tensor([0.3, -0.2], requires_grad=True)
    count = 20_000
    noise = (torch.arange(count) + 0.5) / count
    with torch.no_grad():
        action = draw(z.expand(count, 2), noise, temperature)
    # One turn of one word: what follows YOU: is the action.
    x = torch.zeros(count, HEAD + 2, dtype=torch.int64)
    x[:, HEAD], x[:, HEAD + 1] = YOU, first + action
    logits = torch.full((count, 2, first + 2), -50.0)
    logits = torch.cat([logits[..., :first], z.expand(count, 2, 2)], 2)
    reward = rewards[action]
    baseline = Baseline(torch.zeros(3, dtype=torch.float64))
    advantage = baseline.advantage(reward)
    weights = advantage[:, None] * discounts(own_words(x[:, HEAD:]), 0.95)
    # <selection> could be drawn, too, but its logit is far below.
    loss = word_loss(policy_words(logits, x, temperature), x[:, HEAD:], weights).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    shares = (z / temperature).softmax(0).detach()
    expected = -shares[0] * shares[1] * (rewards[0] - rewards[1]) / temperature
    assert torch.allclose(gradient, torch.stack([expected, -expected]), rtol=1e-3)


def test_rewards_are_compared_with_the_mean_of_all_so_far() -> None:
    seen = torch.zeros(3, dtype=torch.float64)
    assert Baseline(seen).advantage(torch.tensor([2.0, 4.0])).tolist() == [-1.0, 1.0]
    assert Baseline(seen).advantage(torch.tensor([9.0])).tolist() == [4.0]
    expected = (5.0 - 5.0) / torch.tensor([2.0, 4.0, 9.0, 5.0]).std(correction=0)
    assert torch.isclose(Baseline(seen).advantage(torch.tensor([5.0]), standardise=True)[0], expected)


def test_old_rewards_fade_away_where_memory_is_short() -> None:
    seen = torch.zeros(3, dtype=torch.float64)
    Baseline(seen, memory=4).advantage(torch.zeros(100))
    # Of four rewards that are remembered and one that is new.
    assert Baseline(seen, memory=4).advantage(torch.tensor([10.0])).tolist() == [8.0]
    for _ in range(40):
        last = Baseline(seen, memory=4).advantage(torch.tensor([10.0]))
    assert float(last) < 0.01
    assert seen[0] == 4


def test_the_last_own_word_counts_most() -> None:
    own = torch.tensor([[False, True, True, False, True], [False] * 5])
    assert torch.allclose(discounts(own, 0.5)[0], torch.tensor([0, 0.25, 0.5, 0, 1]))
    assert not discounts(own, 0.5)[1].any()


def test_a_word_that_could_not_be_said_costs_nothing_if_it_does_not_count() -> None:
    logits = torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]], requires_grad=True)
    losses = word_loss(logits, torch.tensor([[0, 1]]), torch.zeros(1, 2))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.tolist() == [0.0]
    assert gradient.isfinite().all()


def test_imitation_weighs_all_words_but_the_first_the_same() -> None:
    x, _ = small_task().dialogues("train")
    weights = said_equally(x)
    there = x[:, HEAD:] != 0
    assert torch.allclose(weights.sum(1), torch.ones(len(x)))
    assert not weights[:, 0].any()
    assert ((weights > 0) == there)[:, 1:].all()


def test_broken_outcomes_teach_nothing() -> None:
    choice = torch.randn(2, 6, 8, generator=stream(0, "choice"))
    outcome = torch.tensor([[0, 1, 2, 1, 0, 0], [DISAGREE] * 6])
    losses = outcome_loss(choice, outcome)
    by_hand = -choice[0].log_softmax(1)[torch.arange(6), outcome[0]].mean()
    assert torch.isclose(losses[0], by_hand)
    assert float(losses[1]) == 0


def test_the_official_reward_is_that_of_the_code() -> None:
    x = small_task().scenarios("train")[:10]
    scores = torch.randn(10, WALK_AWAY + 1, generator=stream(0, "scores"))
    scores = scores.masked_fill(~legal(x[:, :3]), -torch.inf)
    own, other = gains(x)
    for row, got in enumerate(official_reward(x, scores).tolist()):
        shares = scores[row].softmax(0)
        good = [d for d in range(WALK_AWAY) if other[row, d] > own[row, d] and scores[row, d].isfinite()]
        best = max(good, key=lambda d: float(shares[d]))
        expected = 5 - 5 * float(shares.max() - shares[best]) / float(other[row, best] - own[row, best])
        assert got == pytest.approx(expected, abs=1e-5)


def method(name: str, **options: Any) -> tuple[Reinforce, Step, NegotiationTask]:
    task, agent = small_task(), small_agent()
    built: Reinforce = robustplug.build("method", name, **{"vicinity": RULES, **options})
    prepare(built, agent, task)
    batch = next(iter(task.batches("train", Feed(batch_size=16))))
    return built, Step(agent.train(), built, task, batch, stream(0, "step")), task


def test_self_play_is_cross_entropy_with_the_advantage_as_label() -> None:
    built, step, task = method("self-play", people=0)
    # As if negotiations had gone well before: what comes now is worse.
    built.state.get_buffer("rewards")[0] = torch.tensor([100.0, 900.0, 8100.0])
    loss, (view,) = training_loss(built, step)
    assert step.method is built
    assert isinstance(step.target(view), Target)
    rewards = built.state.get_buffer("rewards")
    assert rewards[0, 0] == 100 + 2 * 16  # asked for once more by this test
    with torch.no_grad(), without_dropout(step.model):
        own = task.decide(view.x, step.model(view.x))
    assert bool(((own >= 0) & (own < WALK_AWAY)).all())
    torch.autograd.backward(loss)
    moved = {name for name, p in step.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert "reader.weight_ih_l0" in moved
    # Nobody learns to decide from words alone.
    assert not any(name.startswith(("outcomes", "decider", "onward")) for name in moved)
    assert not any(p.requires_grad for p in other_side(step).parameters())


@pytest.mark.parametrize("name", ["self-play", "rl-attack", "hardening"])
def test_a_method_is_at_work_where_rewards_differ(name: str) -> None:
    built, step, _ = method(name)
    assert built.mechanism(step, []) == {}
    seen = built.state.get_buffer("rewards")
    # 32 rewards of 5: nothing is better than anything else.
    seen[0] = torch.tensor([32.0, 160.0, 800.0])
    assert built.mechanism(step, [])["rewards"].tolist() == [0.0]
    seen[1] = torch.tensor([2.0, 4.0, 16.0])
    assert built.mechanism(step, [])["rewards"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize("name", ["self-play", "rl-attack"])
def test_nothing_is_learned_from_a_word_that_the_rules_chose(name: str) -> None:
    """Of one turn, <selection> is said for the agent: punishing it would only make dialogues endless."""
    built, step, _ = method(name, people=0, vicinity={**RULES, "turns": 1})
    built.state.get_buffer("rewards")[0] = torch.tensor([100.0, 900.0, 8100.0])
    loss, (view,) = training_loss(built, step)
    assert bool(own_words(view.x[:, HEAD:]).any())
    torch.autograd.backward(loss)
    assert not any(p.grad is not None and bool(p.grad.any()) for p in step.model.parameters())


def test_an_adversary_takes_what_the_target_leaves() -> None:
    built, step, _ = method("rl-attack", people=0)
    (view,) = built.views(step, step.batch)
    claimed, counts = view.x[:, 9:12], view.x[:, :3]
    assert ((claimed >= 0) & (claimed <= counts)).all()
    reward = built.label_map.reward(step, view)  # type: ignore[attr-defined]
    own = ((counts - claimed) * view.x[:, 3:6]).sum(1) - (claimed * view.x[:, 6:9]).sum(1)
    assert torch.equal(reward, own.float())


def test_hardening_updates_the_agent_then_its_adversary() -> None:
    built, step, _ = method("hardening", people=4)
    # Rewards were seen before: agents that know nothing seldom agree, and equal rewards teach nothing.
    built.state.get_buffer("rewards")[:] = torch.tensor([1.0, 5.0, 25.0])
    passes = built.passes(step.progress)
    assert [pass_.name for pass_ in passes] == [
        "target",
        "partner",
        "target-people",
        "adversary",
        "adversary-people",
    ]
    networks = {"model": step.model, "adversary": built.state.get_submodule("other_side")}
    partner = built.state.get_submodule("partner")
    assert not any(p.requires_grad for p in partner.parameters())
    for pass_ in passes:
        learner = "adversary" if pass_.name.startswith("adversary") else "model"
        assert pass_.update == {learner}
        for network in networks.values():
            network.zero_grad()
        now = Step(step.model, built, step.task, step.batch, stream(1, "step"), pass_=pass_)
        loss, (view,) = training_loss(built, now)
        torch.autograd.backward(loss)
        assert view.role == ("people" if pass_.name.endswith("people") else "talk")
        assert any(p.grad is not None and bool(p.grad.any()) for p in networks[learner].parameters())
        others = [network for name, network in networks.items() if name != learner]
        assert all(p.grad is None for network in [*others, partner] for p in network.parameters())


def hardening_in(name: str, mute_adversary: bool = False) -> tuple[View, Callable[[View], Tensor], Tensor]:
    """Return a view of a pass of `hardening`, what is rewarded, and the agent's decisions as pieces."""
    built, step, task = method("hardening", people=0)
    if mute_adversary:
        for parameter in built.state.get_submodule("other_side").parameters():
            torch.nn.init.zeros_(parameter)
    pass_ = next(pass_ for pass_ in built.passes(step.progress) if pass_.name == name)
    now = Step(step.model, built, task, step.batch, stream(1, "step"), pass_=pass_)
    (view,) = built.views(now, now.batch)
    with torch.no_grad(), without_dropout(step.model):
        taken = pieces(task.decide(view.x, step.model(view.x)))
    return view, lambda view: built.label_map.reward(now, view), taken  # type: ignore[attr-defined]


def test_what_the_agent_that_is_hardened_gains_its_adversary_loses() -> None:
    view, reward, taken = hardening_in("target")
    # Whatever the agent leaves is the adversary's: it claims nothing of its own.
    assert (view.x[:, 9:12] == -1).all()
    left = ((view.x[:, :3] - taken) * view.x[:, 6:9]).sum(1)
    assert torch.equal(reward(view), ((taken * view.x[:, 3:6]).sum(1) - left).float())

    view, reward, _ = hardening_in("adversary")
    claimed, counts = view.x[:, 9:12], view.x[:, :3]
    assert ((claimed >= 0) & (claimed <= counts)).all()
    left = ((counts - claimed) * view.x[:, 3:6]).sum(1)
    assert torch.equal(reward(view), (left - (claimed * view.x[:, 6:9]).sum(1)).float())


def test_with_its_partner_the_agent_that_is_hardened_must_agree() -> None:
    view, reward, taken = hardening_in("partner")
    assert (view.x[:, 9:12] >= 0).all()
    # Agents that know nothing do not agree: the first partners want what the agent leaves, others nothing.
    x = view.x.clone()
    x[:, 9:12] = 0
    x[:8, 9:12] = (x[:, :3] - taken)[:8]
    agreed = (taken + x[:, 9:12] == x[:, :3]).all(1)
    assert agreed[:8].all()
    assert not agreed.all()
    own = (taken * x[:, 3:6]).sum(1)
    assert own[:8].any()
    assert torch.equal(reward(view.replace(x=x)), (own * agreed).float())


@pytest.mark.parametrize(("name", "same"), [("target", False), ("partner", True)])
def test_a_partner_does_not_become_what_the_adversary_becomes(name: str, same: bool) -> None:
    assert torch.equal(hardening_in(name)[0].x, hardening_in(name, mute_adversary=True)[0].x) == same


def test_an_adversary_that_learns_takes_the_rest_already() -> None:
    with pytest.raises(RecipeError, match="the other side is the adversary"):
        robustplug.build("perturbation", "roll-out", learns=True, complement="learner")


def test_other_tasks_and_vicinities_are_refused() -> None:
    built = robustplug.build("method", "self-play", vicinity={"use": "linf"})
    with pytest.raises(Refused, match="set the vicinity"):
        prepare(built, small_agent(), small_task())
    digits = robustplug.build("task", "digits")
    with pytest.raises(Refused, match="needs a negotiation"):
        prepare(robustplug.build("method", "self-play"), small_agent(), digits)
