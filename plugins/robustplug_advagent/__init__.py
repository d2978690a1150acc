"""AdvAgent: negotiating agents, attacks on them, and agents hardened against these attacks."""

from __future__ import annotations

from collections.abc import Iterable

from robustplug.api import Component, hookimpl

from .attacks.options import (
    AdversaryOptions,
    AnyTurnOptions,
    PartnerOptions,
    PreemptiveOptions,
    ReactiveOptions,
    TransferOptions,
)
from .language_models.options import (
    CausalLmOptions,
    ChatOptions,
    LanguageModelAttackOptions,
    SampledOptions,
)
from .options import (
    AgentOptions,
    DealOptions,
    DialogueLossOptions,
    HardeningOptions,
    PolicyOptions,
    ReinforceOptions,
    ReturnsOptions,
    RlAttackMethodOptions,
    RollOutOptions,
    RulesOptions,
    ScriptedOptions,
    rules_caption,
)

PAPER = "Cheng 2021, doctoral thesis, §3.2: AdvAgent"
LYD17 = "Lewis et al. 2017, Deal or No Deal? End-to-End Learning for Negotiation Dialogues, arXiv:1706.05125"
TASKS = ("scripted-negotiation", "negotiation")
_HERE = "robustplug_advagent"
_LANGUAGE_MODELS = f"{_HERE}.language_models"

OFFICIAL_SEARCH = {
    "changes": 100,
    "kappa": 3,
    "constraint": "penalty",
    "objective": "official",
}

EVALUATE = {"vicinity": {"use": "rules"}, "attack": [{"use": "partner"}]}
"""What an evaluation of an agent does by default."""
THESIS_SEARCH = {"search": "pad"}


@hookimpl
def robustplug_tasks() -> Iterable[Component]:
    """Offer negotiation on scripted and on published dialogues."""
    yield Component(
        "scripted-negotiation",
        f"{_HERE}.dialogues.task:scripted",
        ScriptedOptions,
        "negotiation with scripted dialogues: nothing to download",
        LYD17,
        {"dialogues": 11, "scenarios": 8, "train_scenarios": 11, "unknown_below": 1},
        modality="dialogue",
        evaluate=EVALUATE,
    )
    yield Component(
        "negotiation",
        f"{_HERE}.dialogues.task:deal_or_no_deal",
        DealOptions,
        "Deal or No Deal: 5,808 human negotiations about books, hats and balls",
        LYD17,
        modality="dialogue",
        evaluate=EVALUATE,
    )


@hookimpl
def robustplug_models() -> Iterable[Component]:
    """Offer the negotiating agents."""
    yield Component(
        "negotiator",
        f"{_HERE}.agents.agent:Agent",
        AgentOptions,
        "negotiating agent: one GRU reads and writes, another decides",
        LYD17,
        {"word": 12, "goal": 6, "reader": 16, "attention": 10, "choice": 12, "dropout": 0.0},
        tasks=TASKS,
    )
    yield Component(
        "causal-lm",
        f"{_LANGUAGE_MODELS}.agent:causal_lm",
        CausalLmOptions,
        "a causal language model of transformers that negotiates, from a local folder",
        trial={"folder": "language-model"},
        tasks=TASKS,
    )
    yield Component(
        "openai-chat",
        f"{_LANGUAGE_MODELS}.agent:openai_chat",
        ChatOptions,
        "a language model that negotiates, behind an endpoint of OpenAI's protocol",
        trial={"name": "language-model"},
        tasks=TASKS,
    )


@hookimpl
def robustplug_vicinities() -> Iterable[Component]:
    """Offer the rules of the game."""
    yield Component(
        "rules",
        f"{_HERE}.dialogues.rules:Rules",
        RulesOptions,
        "the dialogues that the rules of the game allow for a scenario",
        PAPER,
        {"turns": 6, "words": 8},
        tasks=TASKS,
        modality="dialogue",
        caption=rules_caption,
    )


@hookimpl
def robustplug_losses() -> Iterable[Component]:
    """Offer the loss of dialogues."""
    yield Component(
        "dialogue",
        f"{_HERE}.agents.loss:DialogueLoss",
        DialogueLossOptions,
        "cross entropy of the words and of the outcome",
        LYD17,
        tasks=TASKS,
    )


@hookimpl
def robustplug_label_maps() -> Iterable[Component]:
    """Offer the targets of REINFORCE."""
    yield Component(
        "returns",
        f"{_HERE}.agents.reinforce:Returns",
        ReturnsOptions,
        "advantage · one-hot of each drawn word",
        PAPER,
        tasks=TASKS,
    )


@hookimpl
def robustplug_output_maps() -> Iterable[Component]:
    """Offer the policy that words are drawn from."""
    yield Component(
        "policy",
        f"{_HERE}.agents.reinforce:Policy",
        PolicyOptions,
        "the logits that words are drawn from",
        LYD17,
        tasks=TASKS,
    )


@hookimpl
def robustplug_methods() -> Iterable[Component]:
    """Offer self-play, the RL attack as training, and adversarial training."""
    method, trial = f"{_HERE}.agents.reinforce:Reinforce", {"people": 4, "vicinity": {"turns": 4, "words": 3}}
    yield Component(
        "self-play",
        method,
        ReinforceOptions,
        "REINFORCE against a frozen copy: the RL agent",
        LYD17,
        trial,
        variants={"paper": {}, "official": {"label_map": {"standardise": True}}},
        tasks=TASKS,
    )
    yield Component(
        "rl-attack",
        method,
        RlAttackMethodOptions,
        "REINFORCE on the advantage over a fixed target: a black-box adversary",
        PAPER,
        trial,
        variants={
            "paper": {},
            "official": {"label_map": {"reward": "official", "standardise": True}},
        },
        tasks=TASKS,
    )
    yield Component(
        "hardening",
        method,
        HardeningOptions,
        "adversarial training: agent and adversary learn in turn (Eq. 3.13)",
        PAPER,
        trial,
        tasks=TASKS,
    )


@hookimpl
def robustplug_perturbations() -> Iterable[Component]:
    """Offer roll-outs, partners and attacks."""
    attacks = f"{_HERE}.attacks.perturbations"
    short = {"epochs": 1, "batch": 11, "people": 2}
    yield Component(
        "roll-out",
        f"{_HERE}.agents.reinforce:RollOut",
        RollOutOptions,
        "the dialogue between the learner and the other side",
        LYD17,
        tasks=TASKS,
    )
    yield Component(
        "partner",
        f"{attacks}:Partner",
        PartnerOptions,
        "negotiate with an agent that does not attack",
        LYD17,
        tasks=TASKS,
    )
    yield Component(
        "rl-attack",
        f"{attacks}:RlAttack",
        AdversaryOptions,
        "an adversary trained against the target's words and decisions",
        PAPER,
        short,
        variants={"paper": {}, "official": {"reward": "official", "lr": 0.2}},
        tasks=TASKS,
    )
    yield Component(
        "transfer-attack",
        f"{attacks}:TransferAttack",
        TransferOptions,
        "a sentence that worked in another dialogue",
        PAPER,
        short,
        tasks=TASKS,
    )
    yield Component(
        "reactive-attack",
        f"{attacks}:ReactiveAttack",
        ReactiveOptions,
        "make the target end the dialogue and decide badly",
        PAPER,
        variants={"paper": THESIS_SEARCH, "official": OFFICIAL_SEARCH},
        tasks=TASKS,
    )
    yield Component(
        "preemptive-attack",
        f"{attacks}:PreemptiveAttack",
        PreemptiveOptions,
        "make the target lower its demand, then end the dialogue",
        PAPER,
        variants={"paper": THESIS_SEARCH, "official": OFFICIAL_SEARCH},
        tasks=TASKS,
    )
    yield Component(
        "any-turn-attack",
        f"{attacks}:AnyTurnAttack",
        AnyTurnOptions,
        "attack at the first turn for which the search finds a sentence",
        PAPER,
        short,
        tasks=TASKS,
    )
    yield Component(
        "lm-attack",
        f"{_LANGUAGE_MODELS}.attacks:LanguageModelAttack",
        LanguageModelAttackOptions,
        "an adversary that is a language model with the attack's goal in its prompts",
        tasks=TASKS,
    )
    yield Component(
        "sampled-reactive-attack",
        f"{_LANGUAGE_MODELS}.attacks:ReactiveSampled",
        SampledOptions,
        "the reactive attack by queries alone: the best of some sentences",
        PAPER,
        {"candidates": 2, "rounds": 2},
        tasks=TASKS,
    )
    yield Component(
        "sampled-preemptive-attack",
        f"{_LANGUAGE_MODELS}.attacks:PreemptiveSampled",
        SampledOptions,
        "the preemptive attack by queries alone: the best of some sentences",
        PAPER,
        {"candidates": 2, "rounds": 2},
        tasks=TASKS,
    )
