"""Show a sentence and its translation, before and after an attack, side by side (Tables 3.6 to 3.8)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from robustplug.api import View

from .attacks.goals import Goal
from .measures import bleu
from .text.search import Translation
from .text.words import PAD, Words

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
                *side_by_side(source.decode(origin[row]), source.decode(x[row])),
                _lines([("output", target.text(said[row])), ("attacked output", target.text(words[row]))]),
                _lines([("", _verdict(goal.keywords[row].tolist(), target, any(said[row]), reached[row]))]),
                _lines([("", _price(origin[row], x[row], source))]),
            ]
        )
        for row in range(len(view))
    ]


def side_by_side(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Write two sentences of equal length one above the other, with changed words between « and »."""
    pairs = [
        (first, second) if first == second else (first, f"{LEFT}{second}{RIGHT}")
        for first, second in zip(before, after, strict=True)
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


def _verdict(keywords: Sequence[int], target: Words, said: bool, reached: bool) -> str:
    wanted = ", ".join(f"“{target.text([word])}”" for word in keywords if word != PAD)
    goal = f"keywords {wanted}" if keywords else "no word in its original place"
    if not said:
        return f"{goal}: nothing to attack, the translation is empty"
    if PAD in keywords:
        return (
            f"{goal}: nothing to attack, fewer than {len(keywords)} keywords are missing from the translation"
        )
    return f"{goal}: {'reached' if reached else 'not reached'}"


def _price(before: Sequence[int], after: Sequence[int], source: Words) -> str:
    changed = sum(first != second for first, second in zip(before, after, strict=True))
    total = len(source.decode(before))
    return f"{changed} of {total} words changed, BLEU {bleu(source.text(after), source.text(before)):.3f}"


def _lines(parts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(_line(name, text) for name, text in parts)


def _line(name: str, text: str) -> str:
    first, rest = f"  {name:{_WIDTH}}  ", " " * _MARGIN
    # Wrapping would misalign the padded columns: wrap only lines that are too long.
    if _MARGIN + len(text) <= LINE:
        return f"{first}{text}".rstrip()
    return textwrap.fill(text, LINE, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
