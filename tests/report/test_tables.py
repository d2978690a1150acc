from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

from rich.console import Console

from robustplug.core.types import AttackResult, Result
from robustplug.evaluation.summary import corruption_summary, worst_cases
from robustplug.report.tables.results import audit_table, caption, result_tables, skipped_lines

LINF = {"use": "linf", "eps": 0.1}


def row(name: str, accuracy: float = 0.5, **changes: Any) -> AttackResult:
    return replace(AttackResult(name, {}, accuracy, 1, 10, 0, 1.0, 1.0, 1.0), **changes)


def shifted(kind: str, severity: int, accuracy: float) -> AttackResult:
    shift = {"use": "corruption", "kind": kind, "severity": severity}
    return row(f"{kind} {severity}", accuracy, shift=shift)


ROWS = (
    row("clean", 0.9),
    row("alone"),
    row("first", 0.7, chain="a", threat=LINF, options={"use": "pgd"}),
    row("second", 0.6, chain="a", threat=LINF, options={"use": "square"}),
    row("third", math.nan, chain="a", threat=LINF, skipped="no library"),
    row("fourth", math.nan, skipped="no library"),
    row("fifth", math.nan, skipped="two classes"),
    *(shifted(kind, severity, 0.9 - severity / 10) for kind in ("fog", "snow") for severity in range(1, 6)),
)


def result(rows: tuple[AttackResult, ...] = ROWS) -> Result:
    meta = {
        "name": "net",
        "task": "digits",
        "suite": "mine",
        "seconds": 1.0,
        "worst_cases": worst_cases(rows),
        "corruptions": corruption_summary(rows, None),
        "normalisation": {"mean": [0.3], "std": [0.2]},
    }
    return Result("test", 10, LINF, rows, meta)


def text(*parts: Any) -> str:
    console = Console(file=io.StringIO(), width=140, record=True)
    console.print(*parts, sep="\n")
    return console.export_text()


def test_corruptions_are_a_matrix_of_their_own() -> None:
    shown = text(*result_tables(result(), 140))
    assert "fog 1" not in shown
    fog = next(line for line in shown.splitlines() if "fog" in line)
    assert [cell.strip() for cell in fog.split("│")[2:-1]] == [
        "80.0%", "70.0%", "60.0%", "50.0%", "40.0%", "60.0%",
    ]  # fmt: skip
    assert "Mean corruption error, not normalised: 40.0%" in shown


def test_a_narrow_terminal_shows_every_column_and_name() -> None:
    console = Console(file=io.StringIO(), width=66, record=True)
    console.print(*result_tables(result((*ROWS[:2], row("pgd (steps=50)", seconds=23.3))), 66), sep="\n")
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["attack", "accuracy", "(95", "%)", "broken", "forwards", "backwards", "time"]
    (attacked,) = (line for line in lines if line.lstrip().startswith("pgd"))
    assert attacked.split() == ["pgd", "(steps=50)", "50.0%", "(24–76)", "1/10", "1.0", "1.0", "23.3", "s"]


def test_a_chain_is_summed_up_and_what_was_skipped_is_said() -> None:
    shown = " ".join(text(*result_tables(result(), 140)).split())
    assert "Worst case of 2 attacks at linf, eps = 0.1 (25.5/255): 60.0%" in shown
    assert "1 skipped, so it may be too high" in shown
    assert skipped_lines(result()) == [
        "skipped: third and 1 more: no library",
        "skipped: fifth: two classes",
    ]


def test_the_caption_names_threat_range_and_normalisation() -> None:
    said = caption(result())
    assert "linf, eps = 0.1 (25.5/255), inputs in [0, 1]; normalisation inside the model (mean 0.3)." in said
    loaded = {"normalisation": {"where": "in front", "mean": [0.5], "std": [0.5]}}
    other = replace(result(), meta={**result().meta, "loaded": loaded})
    assert "normalisation in front (mean 0.5)" in caption(other)
    assert "each on the samples that are still classified correctly" in said
    assert "A standalone row" in said
    assert "A standalone row" not in caption(result((ROWS[0], ROWS[2])))
    assert "classified correctly when clean, or on all samples" in said
    assert "classified correctly when clean." in caption(result((ROWS[0], row("alone", attempted=9))))
    assert "255" not in caption(replace(result(), threat={"use": "words", "eps": 1000}))


def test_an_audit_is_a_table_with_a_grade() -> None:
    finding = {
        "check": "black-box",
        "verdict": "failure",
        "measured": {"Square": 0.25, "size": 12.5},
        "meaning": "It masks.",
        "advice": "Look closer.",
    }
    passed = {"check": "noise", "verdict": "pass", "measured": {}, "meaning": "Fine.", "advice": ""}
    shown = text(
        audit_table({"grade": "D", "verdict": "in doubt", "accuracy": 0.1, "findings": [finding, passed]})
    )
    for part in (
        "grade D, in doubt",
        "FAIL",
        "Square: 25.0%",
        "size: 12.5",
        "It masks. Look closer.",
        "10.0%",
    ):
        assert part in shown
