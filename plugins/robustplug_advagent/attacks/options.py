"""Options of the attacks. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustplug.api import Count, Natural, NonNegative, Positive

from ..options import Discount


@dataclass(frozen=True)
class PartnerOptions:
    """Options of `partner`.

    Attributes:
        agent: run folder of the other side, or "target" for the target itself.
    """

    agent: str = "target"


@dataclass(frozen=True)
class AdversaryOptions:
    """Options of the attack `rl-attack`, which trains an adversary against the target.

    Attributes:
        speaker: run folder of the agent from which the adversary starts, or "target" for the target itself,
            which a black-box attacker would not have.
        adversary: run folder of a trained adversary, used without further training; None to train one.
        epochs: number of epochs over the training scenarios.
        batch: number of negotiations per update.
        lr: learning rate of SGD with Nesterov momentum 0.1.
        clip: largest norm of the gradient.
        gamma: γ, discount of each word before the last.
        reward: "advantage", S_adv − S_ori (Eq. 3.7), or "official", which uses the target's probabilities and
            is not black-box.
        people, people_weight: as in the method `self-play`.
        seed: seed of the training.
    """

    speaker: str = "target"
    adversary: str | None = None
    epochs: Count = 4
    batch: Count = 16
    lr: Positive = 0.1
    clip: Positive = 1.0
    gamma: Discount = 0.95
    reward: Literal["advantage", "official"] = "advantage"
    people: Natural = 4
    people_weight: NonNegative = 1.25
    seed: int = 0


@dataclass(frozen=True)
class TransferOptions(AdversaryOptions):
    """Options of `transfer-attack`: those of `rl-attack`, and

    Attributes:
        turns: n, number of usual turns before the sentence.
        sentences: number of the adversary's sentences to draw from, those of the highest rewards.
    """

    turns: Count = 3
    sentences: Count = 50


@dataclass(frozen=True)
class SearchOptions:
    """Options that all white-box attacks share.

    Attributes:
        speaker: run folder of the agent that speaks for the adversary, or "target" for the target itself.
        changes: largest number of replaced words.
        kappa: κ of Eq. 3.10, the margin at which a sentence is good enough.
        search: "every", which tries every word in every place, as in the authors' code; or "pad", which
            replaces the word whose loss is smallest as <pad>, as in the thesis: some ten times cheaper, and
            weaker.
        constraint: "checked", where <selection> must be the target's likeliest answer, and the target then
            draws its answer; or "penalty", as in the authors' code, which adds the violation to the loss and
            forces the target to answer <selection>, as no attacker could.
        objective: "margin", Eq. 3.10; or "official", the loss of the authors' code.
    """

    speaker: str = "target"
    changes: Count = 2
    kappa: NonNegative = 1.0
    search: Literal["pad", "every"] = "every"
    constraint: Literal["checked", "penalty"] = "checked"
    objective: Literal["margin", "official"] = "margin"


@dataclass(frozen=True)
class ReactiveOptions(SearchOptions):
    """Options of `reactive-attack`: those of all white-box attacks, and

    Attributes:
        turns: n, number of usual turns before the attack.
    """

    turns: Natural = 2


@dataclass(frozen=True)
class PreemptiveOptions(ReactiveOptions):
    """Options of `preemptive-attack`: those of `reactive-attack`, and

    Attributes:
        reply_words: largest number of words of the target's reply in the search.
    """

    reply_words: Count = 20


@dataclass(frozen=True)
class AnyTurnOptions(SearchOptions, AdversaryOptions):
    """Options of `any-turn-attack`: those of white-box attacks and of `rl-attack`, and

    Attributes:
        otherwise: what the adversary says if no attack is found: "delayed", the usual turn; or "transfer", a
            sentence that worked in another dialogue. Only "transfer" trains an adversary.
        reply_words: as in `preemptive-attack`.
        sentences: as in `transfer-attack`.
    """

    otherwise: Literal["delayed", "transfer"] = "delayed"
    reply_words: Count = 20
    sentences: Count = 50
