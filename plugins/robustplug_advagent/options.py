"""Options of tasks, agent and methods. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from robustplug.api import (
    Bounds,
    Count,
    Decay,
    MethodOptions,
    Natural,
    NonNegative,
    Positive,
    Size,
    Use,
    use,
)

Many = Annotated[int, Bounds(ge=1, le=100_000)]

Discount = Annotated[float, Bounds(gt=0, le=1)]
"""γ: above 0, and at most 1."""


@dataclass(frozen=True)
class NegotiationOptions:
    """Options of both tasks.

    Attributes:
        learn_from: data of training and validation: "dialogues", to imitate, or "scenarios", to negotiate
            about. The test split always has scenarios.
        scenarios: number of generated scenarios for validation, and as many others for the test.
        train_scenarios: number of generated scenarios for training, if none were published.
        unknown_below: largest frequency in the training dialogues at which a word counts as unknown.
        walk_away: whether a side may decide to agree on nothing; otherwise it takes the best allocation
            (Eq. 3.6).
        scenario_seed: seed of the generated data, independent of the run's seed.
    """

    learn_from: Literal["dialogues", "scenarios"] = "dialogues"
    scenarios: Many = 2000
    train_scenarios: Many = 4086
    unknown_below: Natural = 20
    walk_away: bool = False
    scenario_seed: int = 0


@dataclass(frozen=True)
class ScriptedOptions(NegotiationOptions):
    """Options of `scripted-negotiation`.

    Attributes:
        dialogues: number of training dialogues, each seen by both sides; an eighth as many others are made
            for validation.
    """

    dialogues: Many = 1600


@dataclass(frozen=True)
class DealOptions(NegotiationOptions):
    """Options of `negotiation`.

    Attributes:
        root: folder with train.txt and val.txt, optionally test.txt and selfplay.txt, or with a subfolder
            "negotiate" that has them; by default the variable ROBUSTPLUG_DATA, else "data".
        download: whether to fetch missing files into `root`; their licence, CC BY-NC 4.0, is shown.
        skip_malformed: whether to leave malformed lines out, and count them in a note, instead of refusing
            the file.
        test: file with the scenarios of the test: dialogues, or two lines per scenario; None to generate
            them.
    """

    root: str | None = None
    download: bool = False
    skip_malformed: bool = False
    test: str | None = None


@dataclass(frozen=True)
class AgentOptions:
    """Options of `negotiator`; the defaults are those of the first release of Lewis et al.

    Attributes:
        word, goal, reader, attention, choice: sizes of the word embedding, of the encoded goal, of the GRU
            that reads and writes, of each direction of the GRU that decides, and of its last layer.
        dropout: dropout rate of embeddings and of the head that decides.
        init: bound of the initial weights, uniform between −init and init.
    """

    word: Size = 256
    goal: Size = 64
    reader: Size = 128
    attention: Size = 256
    choice: Size = 256
    dropout: Decay = 0.5
    init: Positive = 0.1


@dataclass(frozen=True)
class RulesOptions:
    """Options of `rules`.

    Attributes:
        turns: largest number of turns of a dialogue; the last turn ends it.
        words: largest number of words of a turn.
        unknown: whether words outside the vocabulary are allowed, for agents of your own that say such words.
            Agents that know the vocabulary alone hear them as <unk>.
    """

    turns: Count = 20
    words: Count = 100
    unknown: bool = False


def rules_caption(threat: Mapping[str, Any]) -> str:
    """Return how tables show this threat model: "rules: at most 20 turns of 100 words"."""
    said = f"{threat['use']}: at most {threat.get('turns', 20)} turns of {threat.get('words', 100)} words"
    return f"{said}, any words" if threat.get("unknown") else said


@dataclass(frozen=True)
class DialogueLossOptions:
    """Options of `dialogue`.

    Attributes:
        words: weight of the mean cross entropy of the words.
        choice: weight of the mean cross entropy of the six outcomes.
    """

    words: NonNegative = 1.0
    choice: NonNegative = 0.5


@dataclass(frozen=True)
class RollOutOptions:
    """Options of `roll-out`.

    Attributes:
        against: run folder of the other side; None for a copy of the initial agent.
        learns: whether the other side learns, too, in separate passes. It is then an adversary, which takes
            what the agent's decision leaves; its reward is S_adv − S_ori, the agent's the negative
            (Eq. 3.13). A copy that does not learn is the agent's partner: both decide.
        complement: who takes what the decision of a side that does not learn leaves: "nobody", so that both
            decide; or the "learner", which is then the adversary.
    """

    against: str | None = None
    learns: bool = False
    complement: Literal["nobody", "learner"] = "nobody"

    def __post_init__(self) -> None:
        if self.learns and self.complement == "learner":
            raise ValueError('learns needs complement = "nobody": the other side is the adversary')


@dataclass(frozen=True)
class PolicyOptions:
    """Options of `policy`.

    Attributes:
        temperature: softmax temperature at which words are drawn.
    """

    temperature: Positive = 0.5


@dataclass(frozen=True)
class ReturnsOptions:
    """Options of `returns`.

    Attributes:
        reward: reward of an adversary: its "advantage" over the other side (Eq. 3.7), or "official", which
            uses the target's probabilities. The reward of an agent is its advantage over an adversary, or
            its score if both decide, 0 without an agreement.
        gamma: γ, discount of each word before the last.
        memory: number of recent rewards in the subtracted mean; None for all so far.
        standardise: whether to divide by the deviation of the rewards, as the authors' code does.
    """

    reward: Literal["advantage", "official"] = "advantage"
    gamma: Discount = 0.95
    memory: Count | None = None
    standardise: bool = False


@dataclass(frozen=True)
class ReinforceOptions(MethodOptions):
    """Options of `self-play`.

    Attributes:
        people: number of human dialogues to imitate in a separate update after each update; 0 for none.
        people_weight: weight of their loss. Lewis et al. make a supervised update with learning rate 0.5
            after every 4 negotiations with learning rate 0.1: 1.25 for each.
    """

    people: Natural = 4
    people_weight: NonNegative = 1.25
    vicinity: Use = use("rules")
    perturbation: Use = use("roll-out")
    label_map: Use = use("returns")
    output_map: Use = use("policy")
    loss: Use = use("dialogue")


@dataclass(frozen=True)
class RlAttackMethodOptions(ReinforceOptions):
    """Options of `rl-attack`, the method: those of `self-play`."""

    perturbation: Use = use("roll-out", complement="learner")


@dataclass(frozen=True)
class HardeningOptions(ReinforceOptions):
    """Options of `hardening`: those of `self-play`.

    Both sides learn, so old rewards are not comparable: the subtracted mean covers recent rewards only.
    """

    perturbation: Use = use("roll-out", learns=True)
    label_map: Use = use("returns", memory=1024)
