"""Options of the attacks. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from robustplug.api import Count, Natural, NonNegative, Positive, UnitInterval


@dataclass(frozen=True)
class GoalOptions:
    """Options of an attack's goal.

    Attributes:
        keywords: number of drawn words to force into the translation, |K|; 0 for a translation that has no
            word in its original place (non-overlapping).
        keyword_seed: seed of the draw; the same for all attacks, so that they can be compared.
        margin: ε of Eq. 2.8 and 2.12.
        mask: keep keywords off the positions of other keywords (Eq. 2.11); without it they collide.
        untargeted: instead of a goal, look for the translation with the lowest BLEU against the data.
        share: an untargeted attack counts as a success when BLEU is at most this share of what it was.
    """

    keywords: Natural = 0
    keyword_seed: int = 0
    margin: NonNegative = 0.0
    mask: bool = True
    untargeted: bool = False
    share: UnitInterval = 0.5

    def __post_init__(self) -> None:
        if self.untargeted and self.keywords:
            raise ValueError("untargeted has no keywords: leave one of them out")


@dataclass(frozen=True)
class Seq2SickOptions(GoalOptions):
    """Options of `seq2sick`. Lengths are in units of the root mean square length of a word's embedding.

    Attributes:
        steps: largest number of iterations, for each learning rate.
        lr: η, learning rates; each is tried on the sentences that the ones before did not break.
        lambda1: weight of the group lasso Σ‖δ_i‖; 0 for none.
        lambda2: weight of the distance from the nearest embeddings, Eq. 3.4; 0 for none.
        project: take the gradient at the nearest words; otherwise take it at X + δ, and search for words
            only to try the result.
        overwrite: replace δ by that of the nearest words, as in Algorithm 6; otherwise the descent continues
            from δ, as in the authors' code.
        specials: special words may be nearest, too; a sentence that contains one is not a success.
        largest: weight of the largest entry of δ, which the authors' code adds to the loss.
        reset: start each learning rate with δ = 0.
        patience: number of iterations to continue after a success, in search of fewer changed words.
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
        super().__post_init__()
        if not self.lr:
            raise ValueError("lr must hold at least one learning rate")
        if self.overwrite and not self.project:
            raise ValueError("overwrite needs project = true: set project, or leave overwrite out")


@dataclass(frozen=True)
class GreedyOptions(GoalOptions):
    """Options of `greedy-replacement`.

    Attributes:
        rounds: largest number of replacements that are tried.
        words: number of words that are tried at a position: the first of the vocabulary, which are the most
            frequent ones.
    """

    rounds: Count = 10
    words: Count = 300
