"""Black-box adversaries, which see the target's words and decision: trained, or reusing sentences."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustplug.api import Refused, isolated, stream, weights_digest

from ..agents.agent import Agent, load_agent
from ..agents.loss import said_equally, word_loss
from ..agents.policy import Baseline, discounts, official_reward, policy_words, without_dropout
from ..agents.talk import draw_noise, play
from ..agents.voice import Speaker, Voice
from ..dialogues.layout import COUNTS, HEAD, SELECTION, YOU, swapped, turns
from ..dialogues.rules import Rules, drawn_words
from ..dialogues.scenarios import decision_scores, scores
from ..dialogues.task import NegotiationTask
from .options import AdversaryOptions

KEPT = 4
# Scenarios about which an adversary negotiates to find its best sentences.
_TALKS = 1024


@dataclass
class Learned:
    """Hold an adversary and what it cost.

    Attributes:
        agent: the adversary.
        queries: turns and decisions that the target was asked for.
        curve: after each update, the queries so far, and the mean reward of its dialogues.
    """

    agent: Agent
    queries: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)


_trained: OrderedDict[str, Learned] = OrderedDict()


def speaking(name: str, model: nn.Module, task: NegotiationTask, device: torch.device) -> Agent:
    """Return the agent that speaks for an adversary, or from which its training starts.

    Args:
        name: a run folder, or "target" for the target itself.
        model: the target.
        task: task of the evaluation.
        device: device of the target.

    Raises:
        Refused: the run does not exist, or the target cannot speak for the adversary.
    """
    if name != "target":
        return load_agent(name, task.info, device)
    if not isinstance(model, Agent):
        raise Refused('this target cannot speak for the adversary: name a run as "speaker"')
    return model


def trained_adversary(
    target: Speaker,
    model: nn.Module,
    task: NegotiationTask,
    rules: Rules,
    options: AdversaryOptions,
    device: torch.device,
) -> Learned:
    """Return an adversary trained to negotiate against a target (§3.2.2.1).

    The training uses only the target's words and decisions, unless the reward is "official". The last few
    adversaries are kept for other attacks with the same target, start, data, rules and options. Those
    against an agent of the user's own are not: nothing tells whether it would answer as before.

    Args:
        target: the target as a speaker.
        model: the target's model.
        task: task with the scenarios to learn on.
        rules: rules of the game.
        options: options of the attack.
        device: device of the target.

    Raises:
        Refused: the agent to start from does not exist, or the task has too few dialogues to imitate.
    """
    if options.adversary is not None:
        return Learned(load_agent(options.adversary, task.info, device))
    start = speaking(options.speaker, model, task, device)
    task.refuse_more_people(options.people)
    if not isinstance(model, Agent):
        return _train(target, copy.deepcopy(start), task, rules, options, device)
    # Attacks with further options share adversaries with those without them.
    said = {item.name: getattr(options, item.name) for item in dataclasses.fields(AdversaryOptions)}
    parts = [said, weights_digest(model), weights_digest(start), task.digest]
    key = repr([*parts, rules.turns, rules.words, str(device)])
    if key not in _trained:
        _trained[key] = _train(target, copy.deepcopy(start), task, rules, options, device)
        while len(_trained) > KEPT:
            _trained.popitem(last=False)
    return _trained[key]


def _train(
    target: Speaker,
    agent: Agent,
    task: NegotiationTask,
    rules: Rules,
    options: AdversaryOptions,
    device: torch.device,
) -> Learned:
    scenarios, (people, _) = task.scenarios("train").to(device), task.by_length("train")
    optimizer = torch.optim.SGD(agent.parameters(), lr=options.lr, momentum=0.1, nesterov=True)
    baseline = Baseline(torch.zeros(3, dtype=torch.float64, device=device))
    rng = stream(options.seed, "adversary", device=device)
    order_rng = stream(options.seed, "adversary", "order")
    agent.requires_grad_().train()
    learned = Learned(agent)

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(agent.parameters(), options.clip)
        optimizer.step()

    for _ in range(options.epochs):
        order = torch.randperm(len(scenarios), generator=order_rng).to(device)
        for rows in torch.split(order, options.batch):
            x, reward, queries = negotiated(target, agent, scenarios[rows], task, rules, options.reward, rng)
            learned.queries += queries
            learned.curve.append((learned.queries, float(reward.mean())))
            advantage = baseline.advantage(reward, standardise=options.reward == "official")
            words = x[:, HEAD:]
            drawn = drawn_words(words, rules.turns, rules.words)
            weights = advantage[:, None] * discounts(drawn, options.gamma)
            with torch.enable_grad(), without_dropout(agent):
                logits = policy_words(agent.next_words(x), x)
                length = logits.shape[1]
                update(word_loss(logits, words[:, :length], weights[:, :length]).mean())
            if options.people:
                start = int(torch.randint(len(people) - options.people + 1, (), generator=order_rng))
                human = people[start : start + options.people].to(device)
                seed = int(torch.randint(2**31, (), generator=order_rng))
                with torch.enable_grad(), isolated(seed, device):
                    spoken = agent.next_words(human)
                    width = spoken.shape[1]
                    aim = said_equally(human)[:, :width]
                    imitated = word_loss(spoken, human[:, HEAD : HEAD + width], aim)
                    update(options.people_weight * imitated.mean())
    agent.eval().requires_grad_(False)
    return learned


def negotiated(
    target: Speaker,
    agent: Agent,
    scenarios: Tensor,
    task: NegotiationTask,
    rules: Rules,
    reward: str,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """Let an adversary negotiate.

    The adversary takes what the target leaves, so it makes no decision.

    Args:
        target: the other side.
        agent: the adversary.
        scenarios: rows (N, 12) as the target sees them.
        task, rules: task and rules of the game.
        reward: "advantage", S_adv − S_ori (Eq. 3.7), or "official".
        rng: generator for words and first speakers.

    Returns:
        The dialogues as the adversary sees them, its rewards, (N,), and the queries of the target: its turns
        and its decisions.
    """
    noise = draw_noise(len(scenarios), rules.turns, rules.words, rng)
    first = torch.randint(2, (len(scenarios),), generator=rng, device=scenarios.device)
    talk = play(scenarios, target, Voice(agent), first, noise)
    seen, queries = talk.rows_so_far(), talk.asked + len(scenarios)
    judged = decision_scores(target.choice(seen), seen[:, COUNTS], task.info.walk_away)
    if reward == "official":
        return swapped(seen), official_reward(seen, judged), queries
    own, other, _ = scores(seen, judged.argmax(1))
    return swapped(seen), (other - own).float(), queries


def best_sentences(
    target: Speaker,
    agent: Agent,
    task: NegotiationTask,
    rules: Rules,
    count: int,
    seed: int,
    device: torch.device,
) -> tuple[list[list[int]], int]:
    """Return the list L: an adversary's last sentences in the dialogues with the highest rewards.

    Args:
        target, agent, task, rules: as in `negotiated`.
        count: largest number of different sentences.
        seed: seed of the dialogues.
        device: device of the target.

    Returns:
        The sentences, and the number of queries of the target that found them.

    Raises:
        Refused: the adversary never said a sentence.
    """
    scenarios = task.scenarios("train")[:_TALKS].to(device)
    rng = stream(seed, "sentences", device=device)
    x, reward, queries = negotiated(target, agent, scenarios, task, rules, "advantage", rng)
    found: dict[tuple[int, ...], None] = {}
    for row in reward.argsort(descending=True, stable=True).tolist():
        spoken = [said for who, said in turns(x[row, HEAD:].tolist()) if who == YOU and len(said) > 0]
        last = next((said for said in reversed(spoken) if said != [SELECTION]), None)
        if last is not None:
            found[tuple(last)] = None
        if len(found) == count:
            break
    if not found:
        raise Refused("the adversary never said a sentence to reuse")
    return [list(said) for said in found], queries
