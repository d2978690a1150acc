"""Options of the tasks, models and training slots. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from robustplug.api import Bounds, Count, Decay, Natural, NonNegative, Positive, Size, UnitInterval

UNBOUNDED = 1000.0
"""A radius in words from which tables show none."""


@dataclass(frozen=True)
class VocabularyOptions:
    """Options of both tasks.

    Attributes:
        unknown_below: words that occur at most this often in the training text become <unk>.
        longest: largest number of words of a sentence. Longer training pairs are left out; longer sentences
            of the other splits are cut.
        keyword_above: targeted keywords occur more often than this in the target side of the training text.
        stop_words: number of most frequent words that are never keywords.
    """

    unknown_below: Natural = 1
    longest: Count = 60
    keyword_above: Natural = 10
    stop_words: Natural = 100


@dataclass(frozen=True)
class PiecesOptions(VocabularyOptions):
    """Options of the tasks whose text has a vocabulary to choose.

    Attributes:
        vocabulary: "words", split at spaces; "sentencepiece", trained on the training text (needs
            robustplug[text]); or "tokenizer".
        pieces: size of each sentencepiece vocabulary.
        tokenizer: folder of a Hugging Face tokenizer, for `vocabulary = "tokenizer"` (needs
            robustplug[text]).
    """

    vocabulary: Literal["words", "sentencepiece", "tokenizer"] = "words"
    pieces: Count = 4000
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if (self.vocabulary == "tokenizer") != (self.tokenizer is not None):
            raise ValueError('set vocabulary = "tokenizer" and the folder `tokenizer` together')


@dataclass(frozen=True)
class TranslationOptions(PiecesOptions):
    """Options of `translation`.

    Attributes:
        root: folder that contains the files, or the subfolder `folder` with the files; by default the
            variable ROBUSTPLUG_DATA, else "data".
        folder: name of the subfolder of `root`.
        source, target: suffixes of the files, such as "en" and "de".
        train, validation, test: names of the files, without suffix.
    """

    root: str | None = None
    folder: str = "multi30k"
    source: str = "en"
    target: str = "de"
    train: str = "train"
    validation: str = "val"
    test: str = "test_2016_flickr"


@dataclass(frozen=True)
class DocstringsOptions(PiecesOptions):
    """Options of `docstrings`.

    Attributes:
        packages: installed packages whose documentation strings are read; "python" is the standard library.
    """

    packages: tuple[str, ...] = ("python",)
    longest: Count = 80

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.packages:
            raise ValueError("packages must name at least one package")


@dataclass(frozen=True)
class SyntheticOptions(VocabularyOptions):
    """Options of `synthetic-translation`.

    Attributes:
        sentences: number of training sentences; validation and test have an eighth as many each.
        sentence_seed: seed of the generated sentences; independent of the run's seed.
    """

    unknown_below: Natural = 0
    stop_words: Natural = 10
    sentences: Annotated[int, Bounds(ge=1, le=100_000)] = 6000
    sentence_seed: int = 0


# Tables of options repeat those of similar models on purpose: a recipe's table is read here alone.
@dataclass(frozen=True)
class Seq2SeqOptions:
    """Options of `lstm-attention`.

    Attributes:
        word: size of the embeddings; the output embedding is also the last layer.
        hidden: size of the decoder's state, an even number; each direction of the encoder has half of it.
        dropout: dropout rate of the embeddings and of the attentional vector.
        init: weights are initialised uniformly between −init and init.
        beam: beam width for translation.
        longer: largest number of words of a translation beyond twice the length of the sentence.
    """

    word: Size = 256
    hidden: Size = 256
    dropout: Decay = 0.3
    init: NonNegative = 0.1
    beam: Size = 5
    longer: Natural = 10

    def __post_init__(self) -> None:
        if self.hidden % 2:
            raise ValueError("hidden must be even: each direction of the encoder has half of it")


@dataclass(frozen=True)
class TranslationLossOptions:
    """Options of the loss `translation`.

    Attributes:
        smoothing: α, weight of the uniform distribution over all words.
    """

    smoothing: Decay = 0.0


@dataclass(frozen=True)
class ReplacementOptions:
    """Options of `word-replacement`.

    Attributes:
        eps: largest number of words of a sentence that may be replaced; from 1000 on, any number.
        chrf: least chrF2 of the attacked sentence against the original, in [0, 1]; None for no such limit, as
            in the paper.
        similarity: least cosine between the mean word embeddings of both sentences, from the package
            wordllama (needs robustplug[text]); None for no such limit.
        language_model: folder of a causal language model of transformers that judges fluency.
        perplexity: how many times that of the original the perplexity may be; None for no such limit.
    """

    eps: NonNegative = UNBOUNDED
    chrf: UnitInterval | None = None
    similarity: UnitInterval | None = None
    language_model: str | None = None
    perplexity: Positive | None = None

    def __post_init__(self) -> None:
        if (self.language_model is None) != (self.perplexity is None):
            raise ValueError("set perplexity and the folder `language_model` together")


def replacement_caption(threat: Mapping[str, Any]) -> str:
    """Return how tables show this threat model: "word-replacement: any number of words"."""
    eps = threat.get("eps", UNBOUNDED)
    parts = ["any number of words" if eps >= UNBOUNDED else f"at most {eps:g} words"]
    limits = {"chrf": "chrF2 ≥", "similarity": "cosine ≥", "perplexity": "relative perplexity ≤"}
    parts += [f"{said} {threat[key]:g}" for key, said in limits.items() if threat.get(key) is not None]
    return f"{threat['use']}: {', '.join(parts)}"


@dataclass(frozen=True)
class HuggingFaceOptions:
    """Options of `huggingface`.

    Attributes:
        folder: folder with config.json, safetensors weights and optionally a tokenizer; None for a small
            BART with random weights and the task's words, to be trained.
        layers, width: size of the small BART: layers of encoder and decoder each, and embedding size.
        prefix: text before each sentence, such as "translate English to German: "; None for what the model's
            own config states for the task, as that of T5 does (`task_specific_params`), or else nothing.
        beam, longer: as in `lstm-attention`.
    """

    folder: str | None = None
    layers: Count = 2
    width: Count = 128
    prefix: str | None = None
    beam: Size = 5
    longer: Natural = 10
