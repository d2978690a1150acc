"""A language model as a negotiating agent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from robustplug.api import Refused, TaskInfo

from ..agents.voice import Utterance, utterance
from ..dialogues.layout import EOS, ITEMS, NO_AGREEMENT, OUTCOMES, Words
from ..dialogues.scenarios import Answer
from ..protocol import Goal, OwnAgent, Transcripts, Turn
from .parse import NOTHING, SELECTION, deal_of, turn_of
from .prompts import Prompts, as_texts, read_prompts
from .replies import Replier, Reply, Request

if TYPE_CHECKING:
    from .options import CausalLmOptions, ChatOptions, LanguageModelOptions

KEPT = 200_000
"""Number of turns whose costs are remembered."""
COSTS = ("queries", "tokens read", "tokens written", "failed turns")
_FAR = -100.0


class _Cost(NamedTuple):
    """Hold what a reply cost, in the order of COSTS; NaN for tokens that were not told."""

    queries: float
    read: float
    written: float
    failed: float

    @classmethod
    def of(cls, reply: Reply, understood: bool) -> _Cost:
        read, written = (
            float("nan") if part is None else float(part) for part in (reply.read, reply.written)
        )
        return cls(1.0, read, written, float(not understood))


class _Single:
    """Ask for one dialogue at a time, as any other agent of one's own is asked."""

    def __init__(self, replier: Replier, prompts: Prompts, info: Any, temperature: float) -> None:
        self.replier, self.prompts, self.info, self.temperature = replier, prompts, info, temperature

    def speak(self, goal: Goal, dialogue: Sequence[Turn]) -> str:
        request = Request(self.prompts.to_speak(goal, dialogue), self.temperature, 0)
        (reply,) = self.replier.reply([request], torch.device("cpu"))
        numbers, _ = turn_of(reply, self.info.words, 2**20)
        return " ".join(self.info.words.decode(numbers))

    def decide(self, goal: Goal, dialogue: Sequence[Turn]) -> Mapping[str, int] | None:
        request = Request(self.prompts.to_decide(goal, dialogue, self.info.walk_away), 0.0, 0)
        (reply,) = self.replier.reply([request], torch.device("cpu"))
        pieces = deal_of(reply, goal.counts, self.info.walk_away)
        if pieces is None:
            raise Refused(f"the reply is no decision: {reply.text[:80]!r}")
        return None if isinstance(pieces, str) else dict(zip(ITEMS, pieces, strict=True))


class LanguageModelAgent(OwnAgent):
    """A language model that speaks and decides, in many dialogues at once.

    Its words may be any, also outside the vocabulary; they are written in lower case, with punctuation apart,
    as all words of the data. A turn is drawn by the dialogue's own random numbers, and a decision by none, so
    that both depend on their own dialogue alone.

    Args:
        replier: the language model.
        prompts: what it is told.
        info: info of a negotiation task.
        temperature: softmax temperature of its turns.
        facts: what a result states about the agent besides.

    Raises:
        ValueError: the task is no negotiation.
    """

    def __init__(
        self,
        replier: Replier,
        prompts: Prompts,
        info: Any,
        temperature: float = 0.5,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(getattr(info, "words", None), Words):
            raise ValueError('a language model needs a negotiation task, such as "scripted-negotiation"')
        super().__init__(_Single(replier, prompts, info, temperature), info)
        self.__dict__["replier"] = replier
        self.prompts, self.temperature, self._facts = prompts, temperature, dict(facts or {})
        self._spent: OrderedDict[Any, _Cost] = OrderedDict()

    def facts(self) -> Mapping[str, Any]:
        """Return what a result states: the model, its settings and its prompts."""
        own = {"temperature": self.temperature, "prompts": as_texts(self.prompts)}
        return {**self._facts, **self._replier.facts(), **own}

    def played_by(self, prompts: Prompts, temperature: float) -> LanguageModelAgent:
        """Return the same language model with other prompts."""
        info = self.__dict__["agent"].info
        return LanguageModelAgent(self._replier, prompts, info, temperature, self._facts)

    @property
    def _replier(self) -> Replier:
        found: Replier = self.__dict__["replier"]
        return found

    def speak(self, heard: Transcripts, noise: Tensor, may_end: bool = True) -> Utterance:
        """Ask for a turn in each dialogue; see `Speaker`. Turns that are too long are cut."""
        asked = [
            Request(self.prompts.to_speak(goal, said), self.temperature, seed_of(row))
            for goal, said, row in zip(*heard, noise[:, :2].tolist(), strict=True)
        ]
        rows = []
        replies = self._replier.reply(asked, noise.device)
        for goal, said, reply in zip(*heard, replies, strict=True):
            numbers, understood = turn_of(reply, self.vocabulary, noise.shape[1] - 1)
            if numbers == self.vocabulary.encode([SELECTION]):
                numbers = numbers if may_end else [*self.vocabulary.spell([NOTHING]), EOS]
            else:
                numbers = [*numbers, EOS]
            text = " ".join(self.vocabulary.decode(number for number in numbers if number != EOS))
            self._remember(goal, (*said, Turn(True, text)), _Cost.of(reply, understood))
            rows.append(numbers)
        return utterance(rows, noise.device)

    def forward(self, x: Tensor) -> Answer:
        """Ask for the decisions after dialogues (N, 12 + T); a dialogue without a turn needs none.

        The costs of a dialogue are those of its own turns and of its decision.
        """
        choice = x.new_full((len(x), 6, OUTCOMES), _FAR, dtype=torch.float32)
        told = self.told(x)
        begun = [row for row, (_, dialogue) in enumerate(told) if dialogue]
        asked = [Request(self.prompts.to_decide(*told[row], self.walk_away), 0.0, 0) for row in begun]
        costs = [[0.0] * len(COSTS) for _ in told]
        for row, reply in zip(begun, self._replier.reply(asked, x.device), strict=True):
            goal, dialogue = told[row]
            counts = list(goal.counts.values())
            pieces = deal_of(reply, goal.counts, self.walk_away)
            if pieces is None:
                choice[row] = -torch.inf
            if pieces is None or isinstance(pieces, str):
                choice[row, :, NO_AGREEMENT] = 0
            else:
                for item, taken in enumerate(pieces):
                    choice[row, item, taken] = choice[row, 3 + item, counts[item] - taken] = 0
            parts = [_Cost.of(reply, True), *self._turn_costs(goal, dialogue)]
            costs[row] = [sum(values) for values in zip(*parts, strict=True)]
        table = torch.tensor(costs, device=x.device).view(-1, len(COSTS))
        words = choice.new_zeros(len(x), 1, len(self.vocabulary))
        return Answer(words, choice, dict(zip(COSTS, table.unbind(1), strict=True)))

    def _remember(self, goal: Goal, dialogue: tuple[Turn, ...], cost: _Cost) -> None:
        self._spent[_key(goal, dialogue)] = cost
        if len(self._spent) > KEPT:
            self._spent.popitem(last=False)

    def _turn_costs(self, goal: Goal, dialogue: tuple[Turn, ...]) -> list[_Cost]:
        """Return the costs of the own turns of a dialogue; the rules may have forced the last."""
        keys = [_key(goal, dialogue[: at + 1]) for at, turn in enumerate(dialogue) if turn.mine]
        return [self._spent[key] for key in keys if key in self._spent]


def _key(goal: Goal, dialogue: tuple[Turn, ...]) -> Any:
    return (*goal.counts.values(), *goal.values.values(), dialogue)


def seed_of(noise: Sequence[float]) -> int:
    """Return a seed below 2³¹ from a row of random numbers in [0, 1), of 24 bits each."""
    first, second = noise[0], noise[-1]
    return int(first * 2**24) << 7 | int(second * 2**7)


def causal_lm(options: CausalLmOptions, *, info: TaskInfo) -> LanguageModelAgent:
    """Build the agent of a local language model; see `CausalLm`."""
    from .causal import CausalLm

    return _agent(options, options.folder, CausalLm(options), info)


def openai_chat(options: ChatOptions, *, info: TaskInfo) -> LanguageModelAgent:
    """Build the agent of a language model behind an endpoint; see `Endpoint`."""
    from .endpoint import Endpoint

    return _agent(options, options.name, Endpoint(options), info)


def _agent(options: LanguageModelOptions, name: str, replier: Replier, info: TaskInfo) -> LanguageModelAgent:
    prompts = read_prompts(options.prompts, "negotiator")
    said = {"name": name, "tokens": options.tokens}
    return LanguageModelAgent(replier, prompts, info, options.temperature, said)
