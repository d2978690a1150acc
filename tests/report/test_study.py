from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustplug.report.figures import study as report
from robustplug.report.figures.study import study_figure
from robustplug.report.tables.study import spread_text, study_tables

ALPHA = {"name": "alpha", "labels": ["0.1", "0.2"], "numbers": [0.1, 0.2]}
STEPS = {"name": "steps", "labels": ["1", "2", "3"], "numbers": [1.0, 2.0, 3.0]}
METHOD = {"name": "method", "labels": ["[red]CAT", "TRADES"], "numbers": None}


def body(*axes: dict[str, Any], rows: tuple[str, ...] = ("clean", "pgd"), seeds: int = 2) -> dict[str, Any]:
    """Return a result in which the accuracies of a cell are its number, in per cent."""
    cells = []
    for number, labels in enumerate(itertools.product(*(axis["labels"] for axis in axes))):
        spread = {"mean": number / 100, "deviation": 0.013 if seeds > 1 else None, "n": seeds}
        run = {"status": "finished", "reason": "", "audit": None}
        cells.append(
            {
                "name": ", ".join(f"{a['name']}={label}" for a, label in zip(axes, labels, strict=True)),
                "labels": {axis["name"]: label for axis, label in zip(axes, labels, strict=True)},
                "runs": [{**run, "seed": seed} for seed in range(seeds)],
                "rows": dict.fromkeys(rows, spread),
            }
        )
    return {
        "name": "mine",
        "base": "cat",
        "axes": list(axes),
        "seeds": list(range(seeds)),
        "rows": list(rows),
        "cells": cells,
    }


def printed(result: dict[str, Any], width: int = 120, colour: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colour)
    console.print(*study_tables(result, width), sep="\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (0.612, 0.0133, "61.2 ± 1.3 %"),
        (0.612, None, "61.2 %"),
        (None, None, "–"),
        (1.0, 0.0, "100.0 ± 0.0 %"),
    ],
)
def test_numbers_are_per_cent(mean: float | None, deviation: float | None, text: str) -> None:
    assert spread_text({"mean": mean, "deviation": deviation, "n": 1}) == text


def test_a_table_has_a_column_for_each_axis_and_row() -> None:
    text = printed(body(METHOD, STEPS))
    assert "mine · cat, 6 cells × 2 seeds" in text
    lines = [[part.strip() for part in line.split("│")] for line in text.splitlines() if "│" in line]
    assert lines[5][1:-1] == ["TRADES", "3", "5.0 ± 1.3 %", "5.0 ± 1.3 %"]
    # A label is no markup.
    assert lines[0][1] == "[red]CAT"
    assert "over 2 seeds." in text
    assert "over" not in printed(body(METHOD, seeds=1))
    assert "│ cat " in printed(body())


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_has_all_numbers(width: int) -> None:
    rows = tuple(f"row-{number}" for number in range(9))
    result = body(METHOD, rows=rows)
    text = printed(result, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("0.0 ± 1.3 %") == len(rows)
    assert all(row in text for row in rows)


def test_the_narrowest_terminal_folds_what_does_not_fit() -> None:
    text = printed(body(METHOD, STEPS), 16)
    assert max(map(len, text.splitlines())) <= 16
    assert text.count("┏") == 2


def test_cells_of_other_threat_models_are_told_apart() -> None:
    result = body(METHOD)
    for cell, eps in zip(result["cells"], (0.1, 0.05), strict=True):
        cell["threats"] = {"pgd": {"use": "linf", "eps": eps}}
    said = " ".join(printed(result).split())
    assert "Not the same threat model in all cells: pgd. linf, eps = 0.1: method=[red]CAT;" in said
    assert "linf, eps = 0.05: method=TRADES." in said
    result["cells"][1]["threats"] = result["cells"][0]["threats"]
    assert "threat model" not in printed(result)
    assert "threat model" not in printed(body(METHOD))


def test_failed_cells_are_red_and_say_why() -> None:
    result = body(ALPHA)
    result["cells"][1]["runs"][1] |= {"status": "failed", "reason": "no [memory]"}
    text = printed(result)
    assert "alpha=0.2, seed=1 failed: no [memory]" in text
    assert "fewer where a cell failed" in text
    red = [line for line in printed(result, colour=True).splitlines() if "\x1b[31m" in line]
    assert any("0.2" in line and "1.0 ± 1.3 %" in line for line in red)
    assert not any("0.0 ± 1.3 %" in line for line in red)


def test_audits_have_a_column_of_grades() -> None:
    result = body(ALPHA)
    for run, grade in zip(result["cells"][0]["runs"], "AC", strict=True):
        run["audit"] = {"grade": grade, "verdict": ""}
    text = printed(result)
    assert " audit " in text
    assert " A, C " in text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    calls: list[tuple[str, tuple[Any, ...]]] = []
    for name in ("line_figure", "bar_figure"):
        monkeypatch.setattr(report, name, lambda *given, name=name: calls.append((name, given)))
    return calls


def test_one_axis_of_numbers_is_drawn_as_lines(drawn: list[Any]) -> None:
    assert study_figure(body(STEPS), Path("a.png"))
    ((name, (_, title, x, (panel,), x_label, y_label, limits)),) = drawn
    assert (name, x, x_label, limits) == ("line_figure", [1, 2, 3], "steps", (0, 100))
    assert "mine" in title
    assert y_label == "accuracy (%)"
    assert [(line.label, line.y) for line in panel.lines] == [("clean", [0, 1, 2]), ("pgd", [0, 1, 2])]
    assert panel.lines[0].error == pytest.approx([1.3] * 3)


@pytest.mark.parametrize("second", [STEPS, METHOD])
def test_two_axes_are_drawn_as_a_panel_for_each_row(drawn: list[Any], second: dict[str, Any]) -> None:
    study_figure(body(ALPHA, second), Path("a.png"))
    ((name, (_, _, x, panels, x_label, _, _, legend)),) = drawn
    assert (name, x, x_label, legend) == ("line_figure", [0.1, 0.2], "alpha", second["name"])
    assert [panel.title for panel in panels] == ["clean", "pgd"]
    assert [line.label for line in panels[0].lines] == second["labels"]
    step = len(second["labels"])
    assert [line.y for line in panels[1].lines] == [[at, at + step] for at in range(step)]


def test_the_axis_of_numbers_lies_along_x_wherever_it_stands(drawn: list[Any]) -> None:
    study_figure(body(METHOD, STEPS), Path("a.png"))
    ((_, (_, _, x, panels, x_label, _, _, legend)),) = drawn
    assert (x, x_label, legend) == ([1, 2, 3], "steps", "method")
    assert [line.y for line in panels[0].lines] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("axes", [(METHOD,), (ALPHA, STEPS, METHOD), ()])
def test_all_else_is_drawn_as_bars(drawn: list[Any], axes: tuple[dict[str, Any], ...]) -> None:
    result = body(*axes)
    result["cells"][0]["rows"]["pgd"] = {"mean": None, "deviation": None, "n": 0}
    study_figure(result, Path("a.png"))
    ((name, (_, _, groups, series, _, limits)),) = drawn
    assert (name, limits, list(series)) == ("bar_figure", (0, 100), ["clean", "pgd"])
    assert len(groups) == len(result["cells"])
    assert series["pgd"][0][0] != series["pgd"][0][0]
    assert series["clean"][0] == pytest.approx(list(range(len(groups))))


def test_nothing_is_drawn_of_nothing(drawn: list[Any]) -> None:
    result = body(ALPHA, rows=())
    assert not study_figure(result, Path("a.png"))
    assert drawn == []
    assert "0.2" in printed(result)
