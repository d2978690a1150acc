"""Check what an agent of the user's own returns: every refusal names the method, the field and the value."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from robustplug.api import Refused

from .dialogues.layout import ITEMS, SELECTION, SPECIALS, UNKNOWN, Words


def checked_pieces(taken: Any, counts: Mapping[str, int]) -> list[int]:
    """Return the pieces of each item that `decide` returned.

    Args:
        taken: what it returned, but not None.
        counts: number of pieces of each item, by name.

    Raises:
        Refused: it is no mapping from items to whole numbers of pieces that exist.
    """
    if not isinstance(taken, Mapping):
        raise Refused(f"decide returned {_shown(taken)}: return pieces by item ({', '.join(ITEMS)}), or None")
    for item in taken:
        if item not in ITEMS:
            raise Refused(f"decide returned the item {_shown(item)}: the items are {', '.join(ITEMS)}")
    return [_piece(taken.get(item, 0), counts[item], f"decide returned {item} =") for item in ITEMS]


def checked_words(said: Any) -> list[str]:
    """Return the words of a turn that `speak` returned.

    Raises:
        Refused: it is no text, or contains a word that only the rules say.
    """
    if not isinstance(said, str):
        raise Refused(f"speak returned {_shown(said)}: return the words of a turn as text")
    words = said.split()
    for word in words:
        if word in SPECIALS[:UNKNOWN] and word != SPECIALS[SELECTION]:
            raise Refused(f"speak returned the word {word}, which only the rules say: leave it out")
    return words


def checked_scores(
    found: Any, counts: Mapping[str, int], vocabulary: Words
) -> tuple[Mapping[str, float], Mapping[tuple[int, int, int], float]]:
    """Return the scores of words and of allocations that `logits` returned.

    Args:
        found: what it returned.
        counts: number of pieces of each item, by name.
        vocabulary: the words that may have a score.

    Raises:
        Refused: they are not numbers, or not of words of the vocabulary and of allocations that exist.
    """
    if not isinstance(found, Sequence) or len(found) != 2:
        raise Refused(f"logits returned {_shown(found)}: return scores of words, and of allocations")
    for name, part in zip(("words", "allocations"), found, strict=True):
        if not isinstance(part, Mapping):
            raise Refused(f"logits returned {_shown(part)} for the {name}: return a mapping to scores")
        for key, score in part.items():
            _check_score(score, f"logits returned for {_shown(key)} the score")
    words, allocations = found
    for word in words:
        if word != SPECIALS[UNKNOWN] and vocabulary.encode([word]) == [UNKNOWN]:
            raise Refused(f"logits returned a score of {_shown(word)}: score words of info.words")
    for pieces in allocations:
        if not isinstance(pieces, Sequence) or len(pieces) != len(ITEMS):
            raise Refused(f"logits returned the allocation {_shown(pieces)}: it is pieces of 3 items")
        for item, piece in zip(ITEMS, pieces, strict=True):
            _piece(piece, counts[item], f"logits returned an allocation with {item} =")
    return words, allocations


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


def _piece(value: Any, count: int, what: str) -> int:
    """Return a whole number of pieces, of any type.

    Raises:
        Refused: it is none, or there are not so many.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        piece = operator.index(value)
    except TypeError:
        raise Refused(f"{what} {_shown(value)}: return a whole number of pieces") from None
    if not 0 <= piece <= count:
        raise Refused(f"{what} {piece}, but there are {count}")
    return piece


def _check_score(value: Any, what: str) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        raise Refused(f"{what} {_shown(value)}: return a finite number, or -inf")
