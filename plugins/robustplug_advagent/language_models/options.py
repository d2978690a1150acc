"""Options of language models and of the attacks that need no scores. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from robustplug.api import Bounds, Count, Natural, NonNegative, Positive

Parallel = Annotated[int, Bounds(ge=1, le=256)]
Limit = Literal["max_completion_tokens", "max_tokens"]
Omit = tuple[Literal["temperature", "seed"], ...]


@dataclass(frozen=True)
class LanguageModelOptions:
    """Options that all language models share.

    Attributes:
        prompts: TOML file with the prompts; None for those of the package.
        temperature: softmax temperature of its turns; decisions are made at 0.
        tokens: largest number of tokens of a reply.
        max_queries: largest number of requests that are sent, repeated ones included; None for no bound.
            Replies from the cache are free.
    """

    prompts: str | None = None
    temperature: NonNegative = 0.5
    tokens: Count = 100
    max_queries: Count | None = None


@dataclass(frozen=True, kw_only=True)
class CausalLmOptions(LanguageModelOptions):
    """Options of `causal-lm`: those of all language models, and

    Attributes:
        folder: local folder of the model.
        batch: number of dialogues in which the model replies together.
    """

    folder: str
    batch: Count = 32


@dataclass(frozen=True, kw_only=True)
class ChatOptions(LanguageModelOptions):
    """Options of `openai-chat`: those of all language models, and

    Attributes:
        name: name of the model at the endpoint.
        retries: how often a request is repeated that failed for a reason that may pass.
        seconds: time for one reply; then the request counts as failed.
        patience: longest time, in seconds, that the endpoint may ask to wait before a request is repeated.
        parallel: number of requests at a time.
        limit: name of the parameter that bounds the tokens of a reply.
        omit: parameters that the endpoint does not accept.
    """

    name: str
    retries: Natural = 4
    seconds: Positive = 120.0
    patience: NonNegative = 300.0
    parallel: Parallel = 4
    limit: Limit = "max_completion_tokens"
    omit: Omit = ()


@dataclass(frozen=True)
class LanguageModelAttackOptions:
    """Options of `lm-attack`.

    Attributes:
        agent: the adversary, "causal-lm:FOLDER" or "openai-chat:NAME"; or "target" for the target itself, if
            it is a language model.
        prompts: TOML file with the adversary's prompts; None for those of the package.
        temperature: softmax temperature of its turns.
        tokens: largest number of tokens of a turn.
        max_queries: largest number of requests that the adversary sends; None for no bound.
        limit, omit: as in `openai-chat`.
    """

    agent: str = "target"
    prompts: str | None = None
    temperature: NonNegative = 0.5
    tokens: Count = 100
    max_queries: Count | None = None
    limit: Limit = "max_completion_tokens"
    omit: Omit = ()


@dataclass(frozen=True)
class SampledOptions:
    """Options of the attacks that search by querying the target.

    Attributes:
        speaker: run folder of the agent that speaks for the adversary, or "target" for the target itself.
        turns: n, number of usual turns before the attack.
        candidates: number of sentences that are tried in a round.
        rounds: number of rounds: the first tries sentences of the speaker, each later one the best sentence
            so far with another word in one place.
        samples: number of the target's answers to a sentence that its mean advantage is of.
        enough: mean advantage at which the search ends.
    """

    speaker: str = "target"
    turns: Natural = 2
    candidates: Count = 8
    rounds: Count = 3
    samples: Count = 1
    enough: NonNegative = 1.0
