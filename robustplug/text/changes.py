"""Words of a text, and how two texts differ in them."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

# As TextAttack splits: letters and digits, and marks such as ' or - between them.
_WORD = re.compile(r"[^\W_]+(?:['’\-_*@][^\W_]+)*")

Aligned = tuple[str | None, str | None]
"""A word before and after; None where it was inserted or deleted."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each word of a text begins and ends; punctuation belongs to no word."""
    return [match.span() for match in _WORD.finditer(text)]


def replace_words(text: str, replaced: Mapping[int, str]) -> str:
    """Return the text with other words at some places; what stands between words stays.

    Args:
        text: the text.
        replaced: the new word for each place, counted as in `word_spans`.
    """
    parts, end = [], 0
    for place, (start, stop) in enumerate(word_spans(text)):
        parts += [text[end:start], replaced.get(place, text[start:stop])]
        end = stop
    return "".join([*parts, text[end:]])


def align_words(before: str, after: str) -> list[Aligned]:
    """Align the words of two texts with the fewest replacements, insertions and deletions.

    Words are separated by white space; of equally short alignments, one that replaces words comes first.
    """
    old, new = before.split(), after.split()
    # Only what lies between the common beginning and end needs the quadratic table.
    first = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), None)
    first = min(len(old), len(new)) if first is None else first
    rest = min(len(old), len(new)) - first
    turned = zip(reversed(old), reversed(new), strict=False)
    last = next((at for at, pair in enumerate(turned) if at >= rest or pair[0] != pair[1]), rest)
    one, two = old[first : len(old) - last], new[first : len(new) - last]
    same: list[Aligned] = [(word, word) for word in old]
    return [*same[:first], *_aligned(one, two), *same[len(old) - last :]]


def _aligned(old: Sequence[str], new: Sequence[str]) -> list[Aligned]:
    costs = [list(range(len(new) + 1))]
    for row, word in enumerate(old, 1):
        line = [row]
        for column, other in enumerate(new, 1):
            above, left = costs[-1][column], line[-1]
            line.append(min(costs[-1][column - 1] + (word != other), above + 1, left + 1))
        costs.append(line)
    found: list[Aligned] = []
    row, column = len(old), len(new)
    while row or column:
        here = costs[row][column]
        if row and column and here == costs[row - 1][column - 1] + (old[row - 1] != new[column - 1]):
            row, column = row - 1, column - 1
            found.append((old[row], new[column]))
        elif row and here == costs[row - 1][column] + 1:
            row -= 1
            found.append((old[row], None))
        else:
            column -= 1
            found.append((None, new[column]))
    return found[::-1]


def words_changed(before: str, after: str) -> int:
    """Return how many words of a text were replaced, inserted or deleted: the edit distance in words."""
    return sum(old != new for old, new in align_words(before, after))


def mark_changes(before: str, after: str, left: str = "[[", right: str = "]]") -> tuple[str, str]:
    """Return both texts with each changed word between two marks, as TextAttack writes them to files."""
    sides: tuple[list[str], list[str]] = ([], [])
    for pair in align_words(before, after):
        for side, word in zip(sides, pair, strict=True):
            if word is not None:
                side.append(word if pair[0] == pair[1] else f"{left}{word}{right}")
    return " ".join(sides[0]), " ".join(sides[1])


def mark_changes_html(before: str, after: str) -> tuple[str, str]:
    """Return both texts as HTML: changed words are <del> in the first and <ins> in the second."""
    sides: tuple[list[str], list[str]] = ([], [])
    for pair in align_words(before, after):
        for side, word, tag in zip(sides, pair, ("del", "ins"), strict=True):
            if word is not None:
                shown = html.escape(word)
                side.append(shown if pair[0] == pair[1] else f"<{tag}>{shown}</{tag}>")
    return " ".join(sides[0]), " ".join(sides[1])
