"""Measures of translations and of attacks on them (Tables 3.2 to 3.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from sacrebleu.metrics.bleu import BLEU
from torch import Tensor

from robustplug.api import Measure, View, stream, wilson_interval

from .attacks.goals import Goal
from .text.search import Translation
from .text.words import SPECIALS, UNKNOWN, Words

if TYPE_CHECKING:
    from .text.language import Trigrams

ORDERS = range(1, 5)
# The counts behind corpus BLEU: matches and n-grams of each order, and lengths.
PARTS = (*(f"_matches {n}" for n in ORDERS), *(f"_grams {n}" for n in ORDERS), "_length", "_reference")
RESAMPLES = 1000


def bleu(hypothesis: str, reference: str) -> float:
    """Return the BLEU of one sentence in [0, 1], by sacrebleu: exponential smoothing, effective order."""
    return float(_BLEU.sentence_score(hypothesis, [reference]).score) / 100


_BLEU = BLEU(tokenize="none", effective_order=True)


def bleu_parts(hypothesis: str, reference: str) -> list[float]:
    """Return the counts that corpus BLEU sums over sentences, in the order of PARTS."""
    score = _BLEU.sentence_score(hypothesis, [reference])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def corpus_bleu(sums: list[float]) -> float:
    """Return the corpus BLEU in [0, 100], from sums of `bleu_parts`."""
    whole = [round(number) for number in sums]
    score = BLEU.compute_bleu(
        correct=whole[:4], total=whole[4:8], sys_len=whole[8], ref_len=whole[9], smooth_method="exp"
    )
    return float(score.score)


def measure(view: View, output: Any, source: Words, target: Words, trigrams: Trigrams) -> dict[str, Tensor]:
    """Measure each translation and, where an attack had a goal, the outcome of the attack.

    "input BLEU", "words changed" and the parts of the perplexity cover successful attacks only: a failed
    attack has no cost to measure.

    Args:
        view: the attacked view; x and origin are sentences, y their translations.
        output: a Translation; for anything else the result is empty.
        source, target: the two vocabularies.
        trigrams: language model of the source.
    """
    if not isinstance(output, Translation):
        return {}
    said = [target.text(row) for row in output.words.tolist()]
    # <unk> in the data replaces a real word: a translation that contains <unk> has not found that word.
    known = [target.text(row).replace(SPECIALS[UNKNOWN], "<?>") for row in view.y.tolist()]
    parts = torch.tensor([bleu_parts(*pair) for pair in zip(said, known, strict=True)], dtype=torch.float64)
    found = dict(zip(PARTS, parts.view(-1, len(PARTS)).unbind(1), strict=True))
    goal = Goal.of(view.info, target)
    if goal is not None:
        reached = goal.reached(output.words).cpu()
        before, after = ([source.text(row) for row in rows.tolist()] for rows in (view.origin, view.x))
        scores = [bleu(*pair) for pair in zip(after, before, strict=True)]
        surprise, words = trigrams.surprise(view.x)
        first, _ = trigrams.surprise(view.origin)
        won = {
            "input BLEU": torch.tensor(scores, dtype=torch.float64),
            "words changed": (view.x != view.origin).sum(1).cpu().double(),
            "_surprise": surprise,
            "_surprise before": first,
            "_words": words,
        }
        found["_success"] = reached.double()
        found |= {name: values.masked_fill(~reached, torch.nan) for name, values in won.items()}
    return {name: values.to(view.x.device) for name, values in found.items()}


def pool(values: Mapping[str, Tensor]) -> dict[str, Measure]:
    """Return the measures that are not means: BLEU against the data, success rate and perplexities.

    The interval of BLEU is a bootstrap over sentences, and that of the success rate is Wilson's. The
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
        found["BLEU"] = _whole_bleu(torch.stack([values[name] for name in PARTS], 1))
    return found


def _whole_bleu(parts: Tensor) -> Measure:
    parts = parts[~parts.isnan().any(1)]
    count = len(parts)
    if not count:
        return Measure(math.nan, math.nan, math.nan, 0)
    draws = torch.randint(count, (RESAMPLES, count), generator=stream(0, "bootstrap", count))
    sums = torch.stack([parts[draw].sum(0) for draw in draws])
    scores = torch.tensor([corpus_bleu(row) for row in sums.tolist()])
    low, high = torch.quantile(scores, torch.tensor([0.025, 0.975])).tolist()
    return Measure(corpus_bleu(parts.sum(0).tolist()), low, high, count)


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
