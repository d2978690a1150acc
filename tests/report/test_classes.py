"""Accuracies by class and the calibration, in tables, lines and figures; and captions of threat models."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustplug.core.types import AttackResult, Result
from robustplug.report.figures.classes import draw_classes, shares, with_most_errors
from robustplug.report.material import read_material
from robustplug.report.pages.run_page import classes_html
from robustplug.report.tables.classes import class_lines, class_table, shown_rows
from robustplug.report.tables.results import caption, result_tables
from robustplug.report.tables.threats import threat_text, unit_images

from .runs import bits, pgd, result, row, run

SAMPLES = [50, 30, 20, 0]
META: dict[str, Any] = {
    "classes": {"names": ["cat", "[red]dog", "<b>bird", "fish"], "samples": SAMPLES},
    "calibration": {"row": "clean", "bins": 15, "error": 0.0321, "confidence": 0.87},
    "seconds": 1.0,
}
CLEAN = ((45, 5, 0, 0), (6, 24, 0, 0), (0, 0, 20, 0), (0, 0, 0, 0))
AFTER = ((20, 30, 0, 0), (15, 15, 0, 0), (5, 5, 10, 0), (0, 0, 0, 0))


def counted(one: AttackResult, table: Any) -> AttackResult:
    return replace(one, by_class=tuple(table[n][n] for n in range(len(table))), confusion=table)


ROWS = (
    counted(row("clean", bits(89)), CLEAN),
    replace(pgd(bits(60)), by_class=(30, 20, 10, 0)),
    counted(pgd(bits(45), 50), AFTER),
    replace(pgd(bits(70), 99), chain="", by_class=(40, 20, 10, 0)),
)
RESULT = result(*ROWS, **META)


def text(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    found = console.file
    assert isinstance(found, io.StringIO)
    return found.getvalue()


def test_the_clean_row_and_the_last_row_of_each_chain_are_shown() -> None:
    assert [one.name for one in shown_rows(RESULT)] == ["clean", "pgd (steps=50)"]
    said = text(class_table(RESULT))
    for part in ("cat", "50", "90.0%", "40.0%", "[red]dog", "80.0%", "fish"):
        assert part in said
    assert "nan" not in said


def test_lines_name_the_worst_classes_and_the_calibration() -> None:
    clean, attacked, calibration = class_lines(RESULT)
    assert clean == "By class, clean: lowest [red]dog (80.0%); highest <b>bird (100.0%)."
    assert attacked == "By class, pgd (steps=50): lowest cat (40.0%); highest <b>bird (50.0%)."
    assert calibration == (
        "Expected calibration error of the clean row: 3.2% (15 bins; mean confidence 87.0%, accuracy 89.0%)."
    )
    said = "".join(text(part) for part in result_tables(RESULT, 120))
    assert clean in said
    assert calibration in said


def test_results_without_classes_have_none_of_it() -> None:
    plain = result(row("clean", bits(9, 10)))
    assert class_lines(plain) == []
    assert classes_html(plain) == ""
    assert classes_html(None) == ""


def test_the_page_has_the_table_escaped_and_collapsed_if_it_is_long() -> None:
    html = classes_html(RESULT)
    assert "&lt;b&gt;bird" in html
    assert "<details>" not in html
    assert "Expected calibration error" in html
    many = [1] * 30
    long = result(replace(row("clean", bits(30, 30)), by_class=tuple(many)), classes={"samples": many})
    assert classes_html(long).startswith("<details>")


def test_the_figures_hold_percentages_of_each_class(tmp_path: Path) -> None:
    material = read_material(run(tmp_path / "run", RESULT))
    drawn = dict(draw_classes(material, tmp_path / "figures"))
    assert [path.name for path in drawn] == ["confusion-clean.png", "confusion-1.png"]
    assert all(path.stat().st_size > 1000 and path.with_suffix(".svg").is_file() for path in drawn)
    clean, attacked = drawn.values()
    assert clean == "Rows: the true class; columns: the prediction, in % of the class."
    assert "its adversarial example is taken for" in attacked
    table = shares(ROWS[0], [0, 1, 3])
    assert table[0] == [90.0, 10.0, 0.0]
    assert all(value != value for value in table[2])


def test_of_many_classes_those_with_the_most_errors_are_drawn() -> None:
    assert with_most_errors(ROWS[2], SAMPLES, 2) == [0, 1]
    assert with_most_errors(ROWS[2], SAMPLES, 9) == [0, 1, 2, 3]


# --- captions


@pytest.mark.parametrize(
    ("threat", "images", "expected"),
    [
        ({"use": "linf", "eps": 0.05}, True, "linf, eps = 0.05 (12.8/255)"),
        ({"use": "linf", "eps": 0.05}, False, "linf, eps = 0.05"),
        ({"use": "linf", "eps": 0.05}, None, "linf, eps = 0.05"),
        ({"use": "linf", "eps": 8 / 255}, None, "linf, eps = 0.03137 (8/255)"),
        ({"use": "l2", "eps": 1.5}, True, "l2, eps = 1.5"),
        ({"use": "rules"}, True, "rules: at most 20 turns of 100 words"),
        ({"use": "free"}, True, "free"),
        (
            {"use": "masked", "eps": 0.1, "patch": [0, 0, 4, 4], "inner": {"use": "linf", "eps": 0.1}},
            False,
            "masked, eps = 0.1, patch = [0, 0, 4, 4], inner = (linf, eps = 0.1)",
        ),
        ({"use": "words", "swaps": 3, "keep": True}, None, "words, swaps = 3, keep = True"),
        (
            {"use": "box", "radii": [0.1] * 30},
            None,
            "box, radii = 0.1 to 0.1 (30 values)",
        ),
    ],
)
def test_a_threat_model_is_told_with_its_options(
    threat: dict[str, Any], images: bool | None, expected: str
) -> None:
    assert threat_text(threat, images) == expected


@pytest.mark.parametrize(
    ("meta", "images"),
    [
        ({}, True),
        ({"input_range": None}, False),
        ({"input_range": [0.0, 1.0]}, True),
        ({"input_range": [0.0, 1.0], "input_shape": [30]}, False),
        ({"input_range": [0.0, 1.0], "input_shape": None}, False),
        ({"input_range": [0.0, 1.0], "input_shape": [3, 8, 8]}, True),
        ({"input_range": [-1.0, 1.0], "input_shape": [3, 8, 8]}, False),
    ],
)
def test_only_images_from_0_to_1_have_radii_in_levels(meta: dict[str, Any], images: bool) -> None:
    found: Result = result(row("clean", bits(9, 10)), **meta, seconds=1.0)
    assert unit_images(found) is images
    assert ("/255" in caption(found)) is images


def test_a_table_of_thirty_features_is_not_told_by_thirty_means() -> None:
    meta = {"input_range": [0.0, 9.0], "input_shape": [30], "normalisation": {"mean": [0.5] * 30}}
    said = caption(result(row("clean", bits(9, 10)), **meta, seconds=1.0))
    assert "normalisation inside the model (30 means)" in said
    assert "0.5, 0.5" not in said
    assert "inputs in [0, 9]" in said
