"""Translation as a task."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Batch, Feed, Measure, Split, TaskInfo, TextRecord, View, index_batches, stream

from .attacks.goals import Goal
from .measures import QUANTITIES, measure, pool
from .models.training import exact
from .records import records
from .tell import tell
from .text.data import Pair, find_folder, read_pairs
from .text.docstrings import read_docstrings
from .text.language import Trigrams
from .text.search import Translation
from .text.synthetic import Speaker
from .text.words import PAD, UNKNOWN, Words, lengths, padded, widened
from .tokens import vocabularies

if TYPE_CHECKING:
    from .options import DocstringsOptions, SyntheticOptions, TranslationOptions, VocabularyOptions

# Minimum number of letters of a keyword: shorter words mean little on their own.
KEYWORD_LETTERS = 3


@dataclass(frozen=True)
class TranslationInfo(TaskInfo):
    """Describe a translation task to models and attacks.

    Attributes:
        source, target: the vocabularies.
        keywords: numbers of the target words that attacks may use as keywords.
        work: what models are asked for, as configs of transformers name it: "translation_en_to_de" or
            "summarization"; "" if they have no name for it.
    """

    source: Words = field(default_factory=lambda: Words(()))
    target: Words = field(default_factory=lambda: Words(()))
    keywords: tuple[int, ...] = ()
    work: str = ""


class TranslationTask:
    """Serve sentences as x, int64 (N, S), and their translations as y, (N, T), both padded at the end.

    Args:
        options: options of either task.
        pairs: sentence pairs of each split.
        source, target: the two vocabularies.
        work: see TranslationInfo.
    """

    default_model = "lstm-attention"
    quantities = QUANTITIES
    score_name = "exact match"

    def __init__(
        self,
        options: VocabularyOptions,
        pairs: Mapping[Split, Sequence[Pair]],
        source: Words,
        target: Words,
        work: str = "",
    ) -> None:
        self._data: dict[Split, tuple[Tensor, Tensor]] = {}
        for split, members in pairs.items():
            rows = [(source.encode(pair.source), target.encode(pair.target)) for pair in members]
            self._data[split] = _fitting(rows, split, options.longest)
        y = self._data["train"][1]
        self._lengths = {split: lengths(data[0]) for split, data in self._data.items()}
        counts = word_counts(y, target)
        self.info = TranslationInfo(
            sizes={split: len(data[0]) for split, data in self._data.items()},
            source=source,
            target=target,
            keywords=keyword_candidates(target, counts, options.keyword_above, options.stop_words),
            work=work,
        )

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield batches; training batches group sentences of similar lengths."""
        x, y = self._data[split]
        for rows in index_batches(len(x), feed, self._lengths[split]):
            yield Batch(x[rows].to(feed.device), y[rows].to(feed.device), rows.to(feed.device))

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sentence whether the attack's goal is not reached, bool (N,).

        Without a goal, return whether the translation equals the reference, and the reference has no
        unknown words.
        """
        if not isinstance(output, Translation):
            return exact(output, view.y)
        goal = Goal.of(view.info, self.info.target)
        if goal is not None:
            kept: Tensor = ~goal.reached(output.words)
            return kept
        width = max(output.words.shape[1], view.y.shape[1])
        right: Tensor = (widened(output.words, width) == widened(view.y, width)).all(1)
        known: Tensor = (view.y != UNKNOWN).all(1)
        return right & known

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        """Measure translations, and the effect of attacks on sentences; see `measures`."""
        return measure(view, output, self.info.source, self.info.target, self.trigrams)

    def pool(self, values: Mapping[str, Tensor]) -> Mapping[str, Measure]:
        """Return BLEU, perplexity and the other pooled measures of a row; see `measures`."""
        return pool(values)

    def tell(self, view: View, output: Any) -> Sequence[str]:
        """Show the sentence and its translation, before and after the attack, as in Table 3.6."""
        return tell(view, output, self.info.source, self.info.target)

    def records(self, view: View, output: Any) -> Sequence[TextRecord]:
        """Return what an attack did to each sentence, in TextAttack's columns; see `records`."""
        return records(view, output, self.info.source, self.info.target)

    @functools.cached_property
    def trigrams(self) -> Trigrams:
        """Return a language model of the training sentences."""
        x, _ = self._data["train"]
        return Trigrams(x, len(self.info.source))


def word_counts(y: Tensor, target: Words) -> Tensor:
    """Return how often each entry of a vocabulary is a whole word in sentences (N, T), int64 (V,)."""
    joins = target.joins()
    if joins is not None:
        # A piece that the next one continues is part of a longer word.
        y = y.masked_fill(joins[widened(y, y.shape[1] + 1)[:, 1:]], PAD)
    return torch.bincount(y.flatten(), minlength=len(target))


def keyword_candidates(words: Words, counts: Tensor, above: int, stop_words: int) -> tuple[int, ...]:
    """Return the words that attacks may use as keywords, most frequent first.

    A keyword consists of at least 3 letters, and of letters only. It occurs more than `above` times, and is
    not among the `stop_words` most frequent words (thesis §3.1.4: "after removing the stop words").

    Args:
        words: vocabulary of the output.
        counts: number of occurrences of each word, int64 (V,).
        above, stop_words: the thresholds above.
    """
    order = counts.argsort(descending=True, stable=True).tolist()
    usable = words.usable().tolist()
    ranked = [number for number in order if usable[number]]
    found = []
    for number in ranked[stop_words:]:
        letters = words.text([number]).strip()
        fine = words.whole(number) and letters.isalpha() and len(letters) >= KEYWORD_LETTERS
        if fine and counts[number] > above:
            found.append(number)
    return tuple(found)


def _fitting(
    rows: Sequence[tuple[list[int], list[int]]], split: Split, longest: int
) -> tuple[Tensor, Tensor]:
    """Drop training pairs that are empty or too long; cut long sentences of the other splits."""
    kept = list(rows)
    if split == "train":
        kept = [pair for pair in rows if all(0 < len(side) <= longest for side in pair)]
        if not kept:
            raise ValueError(f"no training pair has 1 to {longest} words on both sides: raise task.longest")
        what = f"were left out: one side is empty, or longer than {longest} words (task.longest)"
    else:
        kept = [(source[:longest], target) for source, target in rows]
        what = f"were cut to {longest} words (task.longest)"
    changed = len(rows) - len(kept) or sum(len(source) > longest for source, _ in rows)
    if changed:
        warnings.warn(f"{split}: {changed} of {len(rows)} sentences {what}", stacklevel=2)
    return padded([source for source, _ in kept]), padded([target for _, target in kept])


def translation(options: TranslationOptions) -> TranslationTask:
    """Build the task of aligned files.

    Raises:
        DataMissing: a file is missing.
        BrokenData: the files are not aligned text; the message lists the bad lines.
    """
    folder = find_folder(options)
    names: dict[Split, str] = {
        "train": options.train,
        "validation": options.validation,
        "test": options.test,
    }
    pairs = {
        split: read_pairs(folder / f"{name}.{options.source}", folder / f"{name}.{options.target}")
        for split, name in names.items()
    }
    work = f"translation_{options.source}_to_{options.target}"
    return TranslationTask(options, pairs, *vocabularies(options, pairs["train"]), work)


def docstrings(options: DocstringsOptions) -> TranslationTask:
    """Build the task of documentation strings: a text, and its first sentence as a summary.

    Raises:
        DataMissing: a package is not installed, or has too few texts.
    """
    pairs = read_docstrings(options.packages)
    return TranslationTask(options, pairs, *vocabularies(options, pairs["train"]), "summarization")


def synthetic(options: SyntheticOptions) -> TranslationTask:
    """Build the task of the made-up language."""
    held_out = max(1, options.sentences // 8)
    sizes: dict[Split, int] = {"train": options.sentences, "validation": held_out, "test": held_out}
    pairs: dict[Split, list[Pair]] = {}
    for split, size in sizes.items():
        speaker = Speaker(stream(options.sentence_seed, "sentences", split))
        pairs[split] = [speaker.sentence() for _ in range(size)]
    return TranslationTask(options, pairs, *vocabularies(options, pairs["train"]))
