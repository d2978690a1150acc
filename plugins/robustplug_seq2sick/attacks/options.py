"""Options of the attacks. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from robustplug.api import Count, Natural, NonNegative, Positive


@dataclass(frozen=True)
class GoalOptions:
    """Options that say what an attack wants.

    Attributes:
        keywords: how many drawn words shall appear in the translation, |K|; 0 for a translation that has no
            word in the place where it was (non-overlapping).
        keyword_seed: of the draw; the same for all attacks, so that they can be compared.
        margin: ε of Eq. 2.8 and 2.12.
        mask: keep keywords off the positions of other keywords (Eq. 2.11); without it they collide.
    """

    keywords: Natural = 0
    keyword_seed: int = 0
    margin: NonNegative = 0.0
    mask: bool = True


@dataclass(frozen=True)
class Seq2SickOptions(GoalOptions):
    """Options of `seq2sick`. Lengths are in units of the root mean square length of a word's embedding.

    Attributes:
        steps: iterations at most, for each learning rate.
        lr: η, learning rates; the next one is tried for the sentences that those before did not break.
        lambda1: weight of the group lasso Σ‖δ_i‖; 0 for none.
        lambda2: weight of the distance from the nearest embeddings, Eq. 3.4; 0 for none.
        project: the gradient is that at the nearest words; without it, at X + δ, and words are looked for
            only to try the result.
        overwrite: δ becomes that of the nearest words, as in Algorithm 6; otherwise it goes on from where it
            was, as in the authors' code.
        specials: special words may be nearest, too; a sentence that has one is no success.
        largest: weight of the largest entry of δ, which the authors' code adds to the loss.
        reset: each learning rate starts with δ = 0.
        patience: iterations to go on, after a success, in search of one with fewer changed words.
    """

    steps: Count = 100
    lr: tuple[Positive, ...] = (0.1, 0.3, 1.0)
    lambda1: NonNegative = 1.0
    lambda2: NonNegative = 0.2
    project: bool = True
    overwrite: bool = False
    specials: bool = False
    largest: NonNegative = 0.0
    reset: bool = True
    patience: Natural = 20

    def __post_init__(self) -> None:
        if not self.lr:
            raise ValueError("lr must hold at least one learning rate")
        if self.overwrite and not self.project:
            raise ValueError("without project there is nothing to overwrite δ by: leave overwrite out")


@dataclass(frozen=True)
class GreedyOptions(GoalOptions):
    """Options of `greedy-replacement`.

    Attributes:
        rounds: replacements tried, at most.
        words: how many words are tried at a position: the first of the vocabulary, which are the most
            frequent ones.
    """

    rounds: Count = 10
    words: Count = 300
