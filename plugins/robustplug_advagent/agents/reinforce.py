"""Learn from the outcome of negotiations: REINFORCE as a cross entropy, h = advantage · one-hot(word)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import (
    Batch,
    Cost,
    Method,
    MethodState,
    ParamGroup,
    Pass,
    Progress,
    Refused,
    Step,
    Task,
    View,
)

from ..dialogues.layout import CLAIM, COUNTS, HEAD, swapped, trimmed
from ..dialogues.rules import drawn_words
from ..dialogues.scenarios import decision_scores, pieces, scores, without_dialogue
from ..dialogues.task import NegotiationTask, negotiating
from ..options import ReinforceOptions
from .agent import Agent, Reading, load_agent
from .loss import Target, said_equally
from .policy import Baseline, discounts, official_reward, policy_words, without_dropout
from .talk import claim_of, noise_of, play, with_claims
from .voice import Voice

if TYPE_CHECKING:
    from robustplug.api import Vicinity

    from ..options import PolicyOptions, ReturnsOptions, RollOutOptions

ADVERSARY = "adversary"
"""Name of the group of the other side's parameters, if it learns."""
PARTNER = "partner"
"""Name of the pass in which a hardened agent negotiates with one that does not learn, and both decide."""
PEOPLE = "people"
"""Suffix of the names of passes that imitate people."""


def adversary_learns(step: Step) -> bool:
    """Return whether the other side learns in this pass."""
    return ADVERSARY in step.pass_.update


def network(step: Step) -> nn.Module:
    """Return the network that learns in this pass."""
    return other_side(step) if adversary_learns(step) else step.model


def other_side(step: Step) -> nn.Module:
    """Return the other side's network in this pass; the perturbation keeps it in the method's state."""
    state = getattr(step.method, "state", None)
    assert isinstance(state, nn.Module)
    return state.get_submodule(PARTNER if step.pass_.name == PARTNER else "other_side")


class RollOut:
    """Generate a dialogue for each scenario: the learner negotiates with the other side.

    x becomes the dialogue as the learner sees it, with what the other side takes. An adversary takes whatever
    the agent's decision leaves.
    """

    # A dialogue ends when its words say so.
    needs_sync = True

    def __init__(self, options: RollOutOptions) -> None:
        self.options = options

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Keep the other side in the method's state: a run's agent, or a copy of the initial model.

        If the other side learns, keep a second, frozen copy of its initial state.

        Raises:
            Refused: the run does not exist, or the model is not a negotiating agent.
        """
        if not isinstance(model, Agent):
            raise Refused('the perturbation "roll-out" needs the model "negotiator"')
        o = self.options
        device = model.vocabulary.device
        other = copy.deepcopy(model) if o.against is None else load_agent(o.against, task.info, device)
        state.add_module("other_side", other.requires_grad_(o.learns))
        if o.learns:
            state.add_module(PARTNER, copy.deepcopy(other).requires_grad_(False))
        return [ParamGroup(ADVERSARY, tuple(other.parameters()))] if o.learns else []

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view at the generated dialogues."""
        task, rules = negotiating(step.task, vicinity)
        swap = adversary_learns(step)
        sides = [step.model, other_side(step)]
        mine, theirs = reversed(sides) if swap else sides
        assert isinstance(mine, Agent)
        assert isinstance(theirs, Agent)
        x = without_dialogue(view.origin)
        first, noise = noise_of(step, view.index.to(x.device), rules.turns, rules.words)
        said = play(x, Voice(mine), Voice(theirs), first, noise).rows_so_far()
        step.meter.forwards += len(x)
        if self.options.learns and not swap and step.pass_.name != PARTNER:
            return view.replace(x=said)
        # The other side decides from its own view of the dialogue.
        seen = swapped(said)
        with torch.no_grad(), without_dropout(theirs):
            choice = step.forward(
                seen, variant="policy", module=None if theirs is step.model else theirs
            ).choice
        judged = decision_scores(choice, seen[:, COUNTS], task.info.walk_away)
        decision = judged.argmax(1)
        if not swap and self.options.complement == "nobody":
            return view.replace(x=with_claims(said, claim_of(decision)))
        # An adversary takes what this decision leaves.
        info = {**view.info, "decision_scores": judged}
        return view.replace(x=with_claims(said, pieces(decision)), info=info)

    def cost(self, target: Cost) -> Cost:
        """Return an unknown cost: it depends on the dialogues."""
        return Cost.unknown()


class Policy:
    """g: the logits that words were drawn from, for rolled-out dialogues; the model's own otherwise.

    Dropout is off for rolled-out dialogues: their words were drawn without it.
    """

    # A dialogue ends when its words say so.
    needs_sync = True

    def __init__(self, options: PolicyOptions) -> None:
        self.temperature = options.temperature

    def __call__(self, step: Step, view: View) -> Any:
        """Return a Reading."""
        module = other_side(step) if adversary_learns(step) else None
        if "rolled" not in view.info:
            return step.forward(view.x, module=module)
        with without_dropout(network(step)):
            output: Reading = step.forward(view.x, variant="policy", module=module)
        return output._replace(words=policy_words(output.words, view.x, self.temperature))


class Returns:
    """h = advantage · γ^(T−t) · one-hot(word) for rolled-out dialogues; imitation otherwise.

    The advantage is the reward minus the running mean of the rewards so far. Checkpoints contain this mean.
    """

    # A dialogue ends when its words say so.
    needs_sync = True

    def __init__(self, options: ReturnsOptions) -> None:
        self.options = options

    def setup(self, model: nn.Module, task: Task, state: MethodState) -> Sequence[ParamGroup]:
        """Keep count, sum and sum of squares of the rewards of each pass: agent, adversary, partner."""
        state.register_buffer("rewards", torch.zeros(3, 3, dtype=torch.float64))
        return []

    def __call__(self, step: Step, view: View) -> Target:
        """Return the target of each dialogue."""
        if "rolled" not in view.info:
            return Target(said_equally(view.x), view.y)
        state = getattr(step.method, "state", None)
        assert isinstance(state, nn.Module)
        _, rules = negotiating(step.task, getattr(step.method, "vicinity", None))
        reward = self.reward(step, view)
        row = 2 if step.pass_.name == PARTNER else int(adversary_learns(step))
        seen = state.get_buffer("rewards")[row]
        advantage = Baseline(seen, self.options.memory).advantage(reward, self.options.standardise)
        step.log(f"reward/{step.pass_.name}", reward)
        words = view.x[:, HEAD:]
        drawn = drawn_words(words, rules.turns, rules.words)
        weights = advantage[:, None] * discounts(drawn, self.options.gamma)
        return Target(weights, None)

    def reward(self, step: Step, view: View) -> Tensor:
        """Return the learner's reward of each dialogue, (N,)."""
        task = step.task
        assert isinstance(task, NegotiationTask)
        if "decision_scores" in view.info:
            # An adversary takes the rest, so the scores follow from the other side's decision.
            seen = swapped(view.x)
            judged = view.info["decision_scores"]
            if self.options.reward == "official":
                return official_reward(seen, judged)
            other, own, _ = scores(seen, judged.argmax(1))
            return (own - other).float()
        # With gradients, so that the objective, which needs them, shares this output.
        own, other, _ = scores(view.x, task.decide(view.x, step.output(view)))
        against = (view.x[:, CLAIM] < 0).all(1)
        return torch.where(against, own - other, own).float()


class Reinforce(Method[ReinforceOptions]):
    """Learn from roll-outs, and keep imitating people, so that the language stays human.

    Each batch makes an update on roll-outs, then one on human dialogues. The gradient of the roll-outs is
    some thirty times as long: it would dominate a joint, clipped update.

    If the other side learns, too (Eq. 3.13), the agent also negotiates with the initial copy of that side, by
    the standard policy gradient of §3.2.4. Against an adversary alone it would overfit to this adversary and
    forget how to agree. The adversary's two updates follow.
    """

    # A dialogue ends when its words say so.
    needs_sync = True

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        """Check that the task is a negotiation.

        Raises:
            Refused: it is not, or it has fewer dialogues than an update imitates.
        """
        known, _ = negotiating(task, self.vicinity)
        self._people = known.by_length("train")
        known.refuse_more_people(self.options.people)
        return super().setup(model, task)

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return the updates of the agent, and those of its adversary if it learns."""
        perturbation = self.perturbation
        if isinstance(perturbation, RollOut) and perturbation.options.learns:
            learners = {"target": "model", ADVERSARY: ADVERSARY}
        else:
            learners = {"main": "model"}
        kinds = ("", f"-{PEOPLE}") if self.options.people else ("",)
        found = [Pass(name + kind, frozenset({group})) for name, group in learners.items() for kind in kinds]
        if ADVERSARY in learners:
            found.insert(1, Pass(PARTNER))
        return found

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return rolled-out dialogues, or human dialogues to imitate."""
        if step.pass_.name.endswith(PEOPLE):
            return [self._imitated(step, point).replace(weight=self.options.people_weight)]
        # Marked before the roll-out: output and label maps depend on the mark.
        view = View.of(point, "talk").replace(info={**point.info, "rolled": True})
        return [self.perturbation(step, view, self.vicinity)]

    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        """Return "rewards", the deviation of the rewards that each learner has seen: 0 if all are equal."""
        if "rewards" not in dict(self.state.named_buffers()):
            return {}
        rewards = self.state.get_buffer("rewards")
        count, total, squares = rewards[rewards[:, 0] > 0].unbind(1)
        deviation = (squares / count - (total / count).square()).clamp_min(0).sqrt()
        return {"rewards": deviation} if len(count) else {}

    def _imitated(self, step: Step, point: Batch) -> View:
        """Draw human dialogues of similar lengths."""
        x, y = self._people
        count = self.options.people
        start = int(torch.randint(len(x) - count + 1, (), generator=step.rng, device=step.rng.device))
        device = point.index.device
        rows = trimmed(x[start : start + count]).to(device)
        index = torch.arange(start, start + count, device=device)
        return View(rows, y[start : start + count].to(device), "people", rows, index)

    def cost(self) -> Cost:
        """Return an unknown cost: it depends on the dialogues."""
        return Cost.unknown()
