"""The loss of dialogues: one cross entropy over words and outcomes, for imitation and for REINFORCE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustplug.api import Step, View

from ..dialogues.layout import DISAGREE, DISCONNECT, HEAD, PAD
from .agent import Agent, Reading

if TYPE_CHECKING:
    from ..options import DialogueLossOptions


class Target(NamedTuple):
    """Hold the target of a dialogue: h = weight · one-hot(word) for each word, and the outcomes.

    Attributes:
        weights: weight of each word, (N, T); 0 for words that are not learned, and for padding.
        outcome: outcome of each item, int64 (N, 6); None if outcomes are not learned.
    """

    weights: Tensor
    outcome: Tensor | None


def said_equally(x: Tensor) -> Tensor:
    """Return weights (N, T), equal for all words of a dialogue, with a total of 1."""
    there = (x[:, HEAD:] != PAD).float()
    # The first word, a speaker's name, has no context to predict it.
    there[:, :1] = 0
    return there / there.sum(1, keepdim=True).clamp_min(1)


def word_loss(logits: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    """Return −Σ_t weight_t · log softmax(z_(t−1))[word_t] of each dialogue, (N,).

    Args:
        logits: logits of the word after each word, (N, T, V).
        words: the words, int64 (N, T).
        weights: weight of each word, (N, T); that of the first word is ignored.
    """
    # A word that the learner did not choose may have probability 0, and 0 · ∞ is NaN.
    chosen = words[:, 1:].masked_fill(weights[:, 1:] == 0, -1)
    logits = logits[:, :-1].flatten(0, 1)
    losses = F.cross_entropy(logits, chosen.flatten(), reduction="none", ignore_index=-1)
    return (losses.view(len(words), -1) * weights[:, 1:]).sum(1)


def outcome_loss(choice: Tensor, outcome: Tensor) -> Tensor:
    """Return the mean cross entropy of the six outcomes of each dialogue, (N,).

    The loss is 0 for people who disagreed about their agreement, or whose connection broke.

    Args:
        choice: logits (N, 6, 8).
        outcome: int64 (N, 6).
    """
    ignored = (outcome == DISAGREE) | (outcome == DISCONNECT)
    target = outcome.masked_fill(ignored, -1)
    losses = F.cross_entropy(choice.flatten(0, 1), target.flatten(), reduction="none", ignore_index=-1)
    return losses.view(-1, 6).mean(1)


class Perplexity(NamedTuple):
    """Hold a perplexity.

    Attributes:
        value: exp of the mean cross entropy of a word.
        low, high: 95 % confidence interval, for dialogues drawn independently of one another.
        words: number of predicted words; the first of a dialogue, a speaker's name, is not predicted.
    """

    value: float
    low: float
    high: float
    words: int


@torch.no_grad()
def perplexity(agent: Agent, x: Tensor) -> Perplexity:
    """Measure how well an agent, in eval mode, predicts the words of dialogues (N, 12 + T)."""
    nats, counts = [], []
    for rows in torch.split(x, 256):
        logits = agent.next_words(rows)
        words = rows[:, HEAD : HEAD + logits.shape[1]]
        there = (words != PAD).float()
        nats.append(word_loss(logits, words, there).double())
        counts.append(there[:, 1:].sum(1).double())
    total, size = torch.cat(nats), torch.cat(counts)
    mean = total.sum() / size.sum()
    # The interval is that of a ratio of sums: words of one dialogue are not independent samples.
    half = 1.96 * (total - mean * size).square().sum().sqrt() / size.sum()
    low, value, high = torch.stack([mean - half, mean, mean + half]).exp().tolist()
    return Perplexity(value, low, high, int(size.sum()))


class DialogueLoss:
    """words · (word loss) + choice · (outcome loss)."""

    # The agent cuts the dialogues of a batch to the longest.
    needs_sync = True

    def __init__(self, options: DialogueLossOptions) -> None:
        self.options = options

    def __call__(self, step: Step, view: View, output: Any, target: Any) -> Tensor:
        """Return the loss of each dialogue, (N,).

        Args:
            step: the step of this update.
            view: a view whose x are rows (N, 12 + T).
            output: a Reading, cut to the longest dialogue.
            target: a Target; for dialogues to imitate, the outcomes alone, (N, 6).
        """
        assert isinstance(output, Reading)
        aim = target if isinstance(target, Target) else Target(said_equally(view.x), target)
        length = output.words.shape[1]
        o = self.options
        words = view.x[:, HEAD : HEAD + length]
        total = o.words * word_loss(output.words, words, aim.weights[:, :length])
        # Even a loss of 0 would run a backward pass through the head that decides.
        return total if aim.outcome is None else total + o.choice * outcome_loss(output.choice, aim.outcome)
