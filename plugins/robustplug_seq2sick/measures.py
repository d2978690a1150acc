"""Measures of translations and of attacks on them (Tables 3.2 to 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Measure, Quantity, View, stream, wilson_interval

from .attacks.goals import Goal, readable_data
from .text.scores import BLEU_PARTS, CHRF_PARTS, bleu, bleu_parts, chrf, chrf_of, chrf_parts, corpus_bleu
from .text.search import Translation
from .text.words import Words, rows_of

if TYPE_CHECKING:
    from .text.language import Trigrams

PARTS = (*BLEU_PARTS, *CHRF_PARTS)
RESAMPLES = 1000
# What the field reads first, and how a number judges the model.
QUANTITIES = (
    Quantity("success %", better="lower", share=True, headline=True),
    Quantity("words changed", better="higher", headline=True),
    Quantity("BLEU", better="higher", headline=True),
    Quantity("chrF", better="higher", headline=True),
    Quantity("input BLEU", better="lower"),
    Quantity("input chrF", better="lower"),
    Quantity("queries", better="higher"),
    Quantity("perplexity", better="higher"),
    Quantity("perplexity before"),
)


def measure(view: View, output: Any, source: Words, target: Words, trigrams: Trigrams) -> dict[str, Tensor]:
    """Measure each translation and, where an attack had a goal, the outcome of the attack.

    "input BLEU", "input chrF", "words changed" and the parts of the perplexity cover successful attacks only:
    a failed attack has no cost to measure. "queries" covers all.

    Args:
        view: the attacked view; x and origin are sentences, y their translations.
        output: a Translation; for anything else the result is empty.
        source, target: the two vocabularies.
        trigrams: language model of the source.
    """
    if not isinstance(output, Translation):
        return {}
    said = [target.text(row) for row in output.words.tolist()]
    known = [readable_data(target, row) for row in view.y.tolist()]
    counts = [
        [*bleu_parts(*pair, target.literal), *chrf_parts(*pair)] for pair in zip(said, known, strict=True)
    ]
    parts = torch.tensor(counts, dtype=torch.float64)
    found = dict(zip(PARTS, parts.view(-1, len(PARTS)).unbind(1), strict=True))
    goal = Goal.of(view.info, target)
    if goal is not None:
        reached = goal.reached(output.words).cpu()
        before, after = ([source.text(row) for row in rows.tolist()] for rows in (view.origin, view.x))
        scores = [bleu(*pair, source.literal) for pair in zip(after, before, strict=True)]
        alike = [chrf(*pair) for pair in zip(after, before, strict=True)]
        pairs = zip(rows_of(view.origin.tolist()), rows_of(view.x.tolist()), strict=True)
        changed = [float(source.changed(*pair)) for pair in pairs]
        surprise, words = trigrams.surprise(view.x)
        first, _ = trigrams.surprise(view.origin)
        won = {
            "words changed": torch.tensor(changed, dtype=torch.float64),
            "input BLEU": torch.tensor(scores, dtype=torch.float64),
            "input chrF": torch.tensor(alike, dtype=torch.float64),
            "_surprise": surprise,
            "_surprise before": first,
            "_words": words,
        }
        found["_success"] = reached.double()
        found |= {name: values.masked_fill(~reached, torch.nan) for name, values in won.items()}
        if "queries" in view.info:
            found["queries"] = view.info["queries"].cpu().double()
    return {name: values.to(view.x.device) for name, values in found.items()}


def pool(values: Mapping[str, Tensor]) -> dict[str, Measure]:
    """Return the measures that are not means: BLEU and chrF against the data, success rate and perplexities.

    The intervals of BLEU and chrF are bootstraps over sentences; that of the success rate is Wilson's. The
    interval of a perplexity is that of the mean surprise per word, by the delta method.

    Args:
        values: results of `measure`, for all sentences of a row.
    """
    found: dict[str, Measure] = {}
    if "_success" in values:
        success = values["_success"].nan_to_num(0.0)
        won, total = int(success.sum()), len(success)
        low, high = wilson_interval(won, total)
        found["success %"] = Measure(100 * won / total, 100 * low, 100 * high, total)
        words = values["_words"]
        found["perplexity"] = perplexity(values["_surprise"], words)
        found["perplexity before"] = perplexity(values["_surprise before"], words)
    if PARTS[0] in values:
        for name, own, of in (("BLEU", BLEU_PARTS, corpus_bleu), ("chrF", CHRF_PARTS, chrf_of)):
            found[name] = _of_corpus(torch.stack([values[part] for part in own], 1), of)
    return found


def _of_corpus(parts: Tensor, score: Callable[[Sequence[float]], float]) -> Measure:
    """Return the score of the summed counts (N, P) of all sentences, with a bootstrap over sentences."""
    parts = parts[~parts.isnan().any(1)]
    count = len(parts)
    if not count:
        return Measure(math.nan, math.nan, math.nan, 0)
    draws = torch.randint(count, (RESAMPLES, count), generator=stream(0, "bootstrap", count))
    sums = torch.stack([parts[draw].sum(0) for draw in draws])
    scores = torch.tensor([score(row) for row in sums.tolist()])
    low, high = torch.quantile(scores, torch.tensor([0.025, 0.975])).tolist()
    if low == high:
        low = high = math.nan
    return Measure(score(parts.sum(0).tolist()), low, high, count)


def perplexity(surprise: Tensor, words: Tensor) -> Measure:
    """Return exp(Σ surprise / Σ words) over all sentences that are not NaN.

    Args:
        surprise: −Σ log p of each sentence, (N,).
        words: number of words of each sentence, (N,).
    """
    known = ~surprise.isnan()
    surprise, words = surprise[known], words[known]
    count = len(surprise)
    if not count:
        return Measure(math.nan, math.nan, math.nan, 0)
    mean = float(surprise.sum() / words.sum())
    half = math.nan
    if count > 1:
        half = 1.96 * float((surprise - mean * words).std() / words.mean()) / math.sqrt(count)
    return Measure(math.exp(mean), math.exp(mean - half), math.exp(mean + half), count)
