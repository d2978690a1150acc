"""Functions of REINFORCE as a cross entropy, h = advantage · one-hot(word)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..dialogues.layout import HEAD, YOU
from ..dialogues.scenarios import gains
from .voice import TEMPERATURE, forbidden


def discounts(own: Tensor, gamma: float) -> Tensor:
    """Return γ^(T−t) for each of the own words, 0 elsewhere: (N, T). Eq. 3.8; the last own word has 1.

    Args:
        own: mask of the words that the learner chose, bool (N, T).
        gamma: γ.
    """
    after = own.long().flip(1).cumsum(1).flip(1) - 1
    return torch.where(own, gamma ** after.clamp_min(0).double(), 0.0).float()


def policy_words(logits: Tensor, x: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the logits that words were drawn from, (N, T, V).

    Args:
        logits: logits of the word after each word, (N, T, V).
        x: rows (N, 12 + T) or wider.
        temperature: softmax temperature at which the words were drawn.
    """
    first = x[:, HEAD : HEAD + logits.shape[1]] == YOU
    return forbidden(logits / temperature, first)


class Baseline:
    """Subtract the running mean of the rewards so far.

    Args:
        seen: count, sum and sum of squares of the rewards, float64 (3,); updated in place.
        memory: number of recent rewards in the mean; older ones decay. None for equal weights of all.
    """

    def __init__(self, seen: Tensor, memory: int | None = None) -> None:
        self.seen, self.memory = seen, memory

    def advantage(self, reward: Tensor, standardise: bool = False) -> Tensor:
        """Add rewards (N,), and return r − µ (Eq. 3.8), divided by their deviation on request."""
        exact = reward.double()
        self.seen += torch.stack([torch.ones_like(exact), exact, exact.square()]).sum(1)
        mean = self.seen[1] / self.seen[0]
        result = exact - mean
        if self.memory is not None and self.seen[0] > self.memory:
            self.seen *= self.memory / self.seen[0]
        if standardise:
            result /= (self.seen[2] / self.seen[0] - mean.square()).clamp_min(0).sqrt().clamp_min(1e-4)
        return result.float()


def official_reward(x: Tensor, decisions: Tensor) -> Tensor:
    """Return 5 − 5·(p_chosen − p_best)/(S_adv − S_ori of best), the reward of the authors' code, (N,).

    `best` is the target's likeliest decision that is worth more to the adversary than to the target. The
    reward uses the target's probabilities, so an attack with it is not black-box.

    Args:
        x: rows (N, 12 + T) as the target sees them.
        decisions: scores of the target's decisions, (N, 126).
    """
    shares = decisions.softmax(1)
    own, other = gains(x)
    advantage = (other - own).float()
    best = shares.masked_fill(advantage <= 0, -1).max(1)
    return 5 - 5 * (shares.amax(1) - best.values) / advantage.gather(1, best.indices[:, None])[:, 0]


@contextlib.contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch off a module's dropout within a block: the words were drawn without it."""
    flags = [(part, part.training) for part in module.modules() if isinstance(part, nn.Dropout)]
    try:
        for part, _ in flags:
            part.training = False
        yield
    finally:
        for part, training in flags:
            part.training = training
