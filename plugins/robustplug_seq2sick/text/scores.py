"""BLEU and chrF, and the counts behind them, by which those of a corpus are pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU

ORDERS = range(1, 5)
# The counts behind corpus BLEU: matches and n-grams of each order, and lengths.
BLEU_PARTS = (*(f"_matches {n}" for n in ORDERS), *(f"_grams {n}" for n in ORDERS), "_length", "_reference")
# The orders of the n-grams of characters, and the weight of recall (Popović 2015, chrF2).
CHARACTERS, BETA = range(1, 7), 2
CHRF_PARTS = tuple(f"_{kind} {n}" for kind in ("common", "said", "known") for n in CHARACTERS)

_SPLIT = {True: BLEU(tokenize="none", effective_order=True), False: BLEU(effective_order=True)}


def bleu(hypothesis: str, reference: str, split: bool = True) -> float:
    """Return the BLEU of one sentence in [0, 1], by sacrebleu: exponential smoothing, effective order.

    Args:
        hypothesis, reference: the texts.
        split: whether tokens are separated by spaces; otherwise sacrebleu's "13a" separates them.
    """
    return float(_SPLIT[split].sentence_score(hypothesis, [reference]).score) / 100


def bleu_parts(hypothesis: str, reference: str, split: bool = True) -> list[float]:
    """Return the counts that corpus BLEU sums over sentences, in the order of BLEU_PARTS."""
    score = _SPLIT[split].sentence_score(hypothesis, [reference])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def corpus_bleu(sums: Sequence[float]) -> float:
    """Return the corpus BLEU in [0, 100], from sums of `bleu_parts`."""
    whole = [round(number) for number in sums]
    score = BLEU.compute_bleu(
        correct=whole[:4], total=whole[4:8], sys_len=whole[8], ref_len=whole[9], smooth_method="exp"
    )
    return float(score.score)


def chrf_parts(hypothesis: str, reference: str) -> list[float]:
    """Return the counts of n-grams of characters, spaces left out, in the order of CHRF_PARTS."""
    said, known = ("".join(text.split()) for text in (hypothesis, reference))
    pairs = [(_grams(said, n), _grams(known, n)) for n in CHARACTERS]
    common = [float((one & other).total()) for one, other in pairs]
    return [*common, *(float(one.total()) for one, _ in pairs), *(float(other.total()) for _, other in pairs)]


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))


def chrf_of(sums: Sequence[float]) -> float:
    """Return chrF2 in [0, 100] from `chrf_parts` of a sentence, or from their sums (Popović 2015).

    Precision and recall are means over the orders that both texts have, as in sacrebleu.
    """
    size = len(CHARACTERS)
    rows = list(zip(sums[:size], sums[size : 2 * size], sums[2 * size :], strict=True))
    kept = [(common / said, common / known) for common, said, known in rows if said and known]
    if not kept:
        return 0.0
    precision, recall = (sum(values) / len(kept) for values in zip(*kept, strict=True))
    if not precision + recall:
        return 0.0
    return float(100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall))


def chrf(hypothesis: str, reference: str) -> float:
    """Return the chrF2 of one sentence in [0, 1]; 1 for equal texts."""
    return 1.0 if hypothesis == reference else chrf_of(chrf_parts(hypothesis, reference)) / 100
