"""Write negotiations as text, in the style of Tables 3.11 to 3.13."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .layout import COUNTS, HEAD, ITEMS, OTHER, OWN, YOU, Words, turns
from .scenarios import WALK_AWAY, pieces, scores

ADVERSARY, TARGET = "Adv agent", "Target"
_WIDTH = max(len(ADVERSARY), len(TARGET))


def tell(x: Tensor, decision: Tensor, words: Words) -> list[str]:
    """Return negotiations as text: the goals of both sides, their turns, and what each got.

    A scenario without a dialogue is "".

    Args:
        x: rows (N, 12 + T) as the target sees them.
        decision: decision of the target, int64 (N,).
        words: the vocabulary.
    """
    own, other, agree = scores(x, decision)
    taken = pieces(decision)
    return [
        ""
        if not any(row[HEAD:])
        else "\n".join(
            [
                _line(ADVERSARY, _goal(row[COUNTS], row[OTHER])),
                _line(TARGET, _goal(row[COUNTS], row[OWN])),
                *_speech(row[HEAD:], words),
                *_outcome(row[COUNTS], mine, int(decision[number]) == WALK_AWAY, bool(agree[number]), got),
            ]
        )
        for number, (row, mine, got) in enumerate(
            zip(x.tolist(), taken.tolist(), zip(other.tolist(), own.tolist(), strict=True), strict=True)
        )
    ]


def _line(who: str, text: str) -> str:
    return f"  {who:{_WIDTH}}  {text}"


def _goal(counts: Sequence[int], values: Sequence[int]) -> str:
    triples = zip(counts, ITEMS, values, strict=True)
    return "  ".join(f"{count}x{item} value {value}" for count, item, value in triples)


def _speech(row: Sequence[int], words: Words) -> list[str]:
    return [
        _line(TARGET if who == YOU else ADVERSARY, " ".join(words.decode(said))) for who, said in turns(row)
    ]


def _outcome(
    counts: Sequence[int], mine: Sequence[int], walked: bool, agree: bool, got: tuple[int, int]
) -> list[str]:
    if walked:
        return [_line(TARGET, "takes nothing: no agreement, 0/10 for both")]
    rest = [count - taken for count, taken in zip(counts, mine, strict=True)]
    note = "" if agree else "  (the other side decided differently: no agreement)"
    return [
        _line(ADVERSARY, f"{_bundle(rest)}  {got[0]}/10{note}"),
        _line(TARGET, f"{_bundle(mine)}  {got[1]}/10"),
    ]


def _bundle(taken: Sequence[int]) -> str:
    return " ".join(f"{count}x{item}" for count, item in zip(taken, ITEMS, strict=True) if count) or "nothing"
