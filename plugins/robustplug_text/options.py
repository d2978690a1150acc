"""Options of the components. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustplug.api import (
    Count,
    Decay,
    MethodOptions,
    Natural,
    NonNegative,
    Positive,
    Seed,
    Size,
    UnitInterval,
    Use,
    use,
)

UNBOUNDED = 1000.0
"""A radius in words from which tables show none."""


@dataclass(frozen=True)
class TextOptions:
    """Options of `text`.

    Attributes:
        data: a table of texts and labels in a file .csv or .tsv; a folder or a name on the Hub with a data
            set of Hugging Face, or from Python a Dataset or DatasetDict of it; "docstrings", sentences of the
            standard library of Python, each from one of six packages; or "synthetic", reviews that a grammar
            makes up.
        validation, test: another table, a split of the data set, or the share of the training samples that is
            held out; None for the data set's own split, or else 0.1 and 0.2.
        text, label: names of the columns; None for "text" or "sentence", and "label" or "class".
        longest: largest number of words of a text; longer texts are cut.
        keep_labels: whether attacks must leave the words of the class names alone.
        vocabulary: number of words that a model of words knows, the most frequent ones of the training texts.
        reviews: number of made-up reviews.
        split_seed: seed of the samples that are held out, and of the made-up reviews.
    """

    data: str = "docstrings"
    validation: str | UnitInterval | None = None
    test: str | UnitInterval | None = None
    text: str | None = None
    label: str | None = None
    longest: Count = 400
    keep_labels: bool = True
    vocabulary: Count = 20_000
    reviews: Count = 3000
    split_seed: Seed = 0


@dataclass(frozen=True)
class WordCnnOptions:
    """Options of `word-cnn`.

    Attributes:
        width: size of the embeddings.
        filters: number of convolutions of each size.
        sizes: numbers of neighbouring words that a convolution reads.
        dropout: dropout rate of the features.
    """

    width: Size = 64
    filters: Size = 64
    sizes: tuple[Count, ...] = (1, 2, 3)
    dropout: Decay = 0.3

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("sizes must hold at least one number of words")


@dataclass(frozen=True)
class HuggingFaceTextOptions:
    """Options of `huggingface-text`.

    Attributes:
        folder: local folder of a sequence classifier and its tokenizer; None for a new model, which reads the
            words of the task.
        kind: type of a new model, such as "bert".
        config: values of the configuration of a new model.
        new_classifier: whether the folder's model gets a new classifier, to be trained, for the task's
            classes; for a model that was trained on other classes, or on none.
    """

    folder: str | None = None
    kind: str = "distilbert"
    config: Mapping[str, Any] = field(default_factory=dict)
    new_classifier: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None and self.config:
            raise ValueError("config is for a new model: leave out config, or folder")


@dataclass(frozen=True)
class SubstitutionOptions:
    """Options of `word-substitution`.

    Attributes:
        eps: largest number of words that may change; from 1000 on, any number.
        share: largest share of the words of a text that may change, rounded up to whole words.
        similarity: least cosine between the embeddings of a word and of its substitute.
        sentence: least cosine between the mean embeddings of the two texts; 0 for no such bound.
        stop_words: whether English stop words must stay.
        embeddings: file of word embeddings in word2vec's text format, such as counter-fitted vectors; None
            for those in the wheel of wordllama.
    """

    eps: NonNegative = UNBOUNDED
    share: UnitInterval = 1.0
    similarity: UnitInterval = 0.5
    sentence: UnitInterval = 0.0
    stop_words: bool = True
    embeddings: str | None = None


def substitution_caption(threat: Mapping[str, Any]) -> str:
    """Return how tables show this threat model: "word-substitution: any number of words, cosine ≥ 0.5"."""
    eps, share, sentence = threat.get("eps", UNBOUNDED), threat.get("share", 1.0), threat.get("sentence", 0.0)
    parts = ["any number of words" if eps >= UNBOUNDED else f"at most {eps:g} words"]
    parts += [f"at most {share:.0%} of a text's words"] if share < 1 else []
    parts.append(f"cosine ≥ {threat.get('similarity', 0.5):g}")
    parts += [f"that of the texts ≥ {sentence:g}"] if sentence else []
    parts += [] if threat.get("stop_words", True) else ["stop words, too"]
    parts += [str(threat["embeddings"])] if threat.get("embeddings") else []
    return f"{threat['use']}: {', '.join(parts)}"


@dataclass(frozen=True)
class TextFoolerOptions:
    """Options of `textfooler`.

    Attributes:
        candidates: N, largest number of substitutes that are tried for a word.
        known: whether substitutes must occur in the training texts; None for yes with the embeddings of
            wordllama, some of whose words are beginnings of others, such as "cinemat".
        queries: largest number of texts that the model is asked about for each sample; None for no bound.
    """

    candidates: Count = 50
    known: bool | None = None
    queries: Natural | None = None


@dataclass(frozen=True)
class FreeLbOptions(MethodOptions):
    """Options of `freelb`. Lengths are in units of the model's embeddings.

    Attributes:
        steps: K, ascent steps; each also contributes to the gradient of the update.
        step_size: α, length of an ascent step.
        largest: ε, largest length of the perturbation of a text; 0 for no bound.
        start: length scale of the random start.
    """

    steps: Count = 3
    step_size: NonNegative = 0.1
    largest: NonNegative = 0.5
    start: Positive = 0.1
    vicinity: Use = use("word-substitution")
    output_map: Use = use("shifted")


@dataclass(frozen=True)
class SmartOptions(MethodOptions):
    """Options of `smart`. Sizes are the largest coordinates of shifts of the model's embeddings.

    Attributes:
        smoothness: λ_s, weight of the divergence from the outputs at shifted embeddings; 0 for none.
        proximal: μ, weight of the divergence from the outputs of the copy; 0 for none, and no copy.
        momentum: β of the copy's weights, θ̃ ← β·θ̃ + (1 − β)·θ; 0 for the weights before the last update.
        steps: K, ascent steps of the shift.
        step_size: η, size of an ascent step at each token.
        largest: ε, largest coordinate of the shift.
        start: σ, deviation of the random start.
        rescale: whether a step ends with the size ε at each token, in the place of at most ε.
    """

    smoothness: NonNegative = 1.0
    proximal: NonNegative = 1.0
    momentum: UnitInterval = 0.99
    steps: Count = 1
    step_size: NonNegative = 1e-3
    largest: NonNegative = 1e-3
    start: Positive = 1e-5
    rescale: bool = False
    vicinity: Use = use("word-substitution")
    output_map: Use = use("shifted")
