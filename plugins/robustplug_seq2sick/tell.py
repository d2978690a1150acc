"""Show a sentence and its translation, before and after an attack, side by side (Tables 3.6 to 3.8)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from robustplug.api import View, align_words

from .attacks.goals import Goal
from .text.scores import bleu
from .text.search import Translation
from .text.words import PAD, Words, rows_of

LEFT, RIGHT = "«", "»"
_WIDTH = len("attacked input") + 1
_MARGIN = _WIDTH + 4
LINE = 79
"""Columns of a line; longer text is wrapped, so that a terminal of 80 columns does not break it."""


def tell(view: View, output: Any, source: Words, target: Words) -> list[str]:
    """Describe the outcome for each sentence; "" where there is no translation."""
    if not isinstance(output, Translation):
        return [""] * len(view)
    goal = Goal.of(view.info, target)
    origin, x, words, y = (rows.tolist() for rows in (view.origin, view.x, output.words, view.y))
    if goal is None:
        return [
            _lines(
                [
                    ("input", source.text(x[row])),
                    ("output", target.text(words[row])),
                    ("reference", target.text(y[row])),
                ]
            )
            for row in range(len(view))
        ]
    reached, said = goal.reached(output.words).tolist(), goal.said.tolist()
    return [
        "\n".join(
            [
                *side_by_side(source.text(origin[row]), source.text(x[row])),
                _lines([("output", target.text(said[row])), ("attacked output", target.text(words[row]))]),
                _lines([("", _verdict(goal, row, target, any(said[row]), reached[row]))]),
                _lines([("", _price(origin[row], x[row], source))]),
            ]
        )
        for row in range(len(view))
    ]


def side_by_side(before: str, after: str) -> list[str]:
    """Write two sentences one above the other, word for word, with changed words between « and »."""
    pairs = [
        (first or "", second or "") if first == second else (first or "", f"{LEFT}{second or ''}{RIGHT}")
        for first, second in align_words(before, after)
    ]
    columns = [(a.ljust(len(b)), b.ljust(len(a))) for a, b in pairs]
    lines: list[list[tuple[str, str]]] = [[]]
    for column in columns:
        used = sum(len(first) + 1 for first, _ in lines[-1])
        if lines[-1] and used + len(column[0]) > LINE - _MARGIN:
            lines.append([])
        lines[-1].append(column)
    return [
        _line(name, " ".join(column[side] for column in line).rstrip())
        for line in lines
        for side, name in enumerate(("input", "attacked input"))
    ]


def _verdict(goals: Goal, row: int, target: Words, said: bool, reached: bool) -> str:
    keywords = goals.keywords[row].tolist()
    wanted = ", ".join(f"“{target.text([word])}”" for word in keywords if word != PAD)
    goal = f"keywords {wanted}" if keywords else "no word in its original place"
    if goals.ceiling is not None:
        goal = f"BLEU of at most {float(goals.ceiling[row]):.3f}"
    if not said:
        return f"{goal}: nothing to attack, the translation is empty"
    if goals.ceiling is not None and not goals.ceiling[row]:
        return f"{goal}: nothing to attack, no word of the translation is right"
    if PAD in keywords:
        return (
            f"{goal}: nothing to attack, fewer than {len(keywords)} keywords are missing from the translation"
        )
    return f"{goal}: {'reached' if reached else 'not reached'}"


def _price(before: Sequence[int], after: Sequence[int], source: Words) -> str:
    changed, (first, second) = source.changed(*rows_of([before, after])), map(source.text, (before, after))
    score = bleu(second, first, source.literal)
    return f"{changed} of {len(first.split())} words changed, BLEU {score:.3f}"


def _lines(parts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(_line(name, text) for name, text in parts)


def _line(name: str, text: str) -> str:
    first, rest = f"  {name:{_WIDTH}}  ", " " * _MARGIN
    # Wrapping would misalign the padded columns: wrap only lines that are too long.
    if _MARGIN + len(text) <= LINE:
        return f"{first}{text}".rstrip()
    return textwrap.fill(text, LINE, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
