from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustplug.errors import RunError
from robustplug.report.figures.charts import Line, Panel, bar_figure, line_figure, matrix_figure

NAN = math.nan
PNG = b"\x89PNG\r\n\x1a\n"
PANELS = [Panel(name, [Line("_a $x$", [10.0, NAN], [1.0, NAN]), Line("b", [5, 6])]) for name in "pq"]
SERIES = {"clean": ([50.0, NAN], [1.0, NAN]), "_pgd $1$ $2$": ([10.0, 20.0], [NAN, NAN])}


def lines(path: Path, panels: list[Panel] = PANELS) -> None:
    line_figure(path, "a $title$", [1.0, 0.001], panels, "α", "accuracy (%)", (0, 100), "legend")


def bars(path: Path, series: dict[str, tuple[list[float], list[float]]] = SERIES) -> None:
    bar_figure(path, "bars", ["one\nline", "two"], series, "accuracy (%)", (0, 100))


def matrix(path: Path, values: list[list[float]] | None = None) -> None:
    matrix_figure(
        path, "matrix", ["r1", "r2"], ["a", "b$", "c"], values or [[1, 2, NAN], [4, 5, 6]], "{:.1f} %"
    )


FIGURES = {"lines": lines, "bars": bars, "matrix": matrix}


@pytest.mark.table(2)
@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_a_png_and_always_the_same(draw: object, tmp_path: Path) -> None:
    assert callable(draw)
    one, two = tmp_path / "new" / "1.png", tmp_path / "2.png"
    draw(one)
    draw(two)
    assert one.read_bytes().startswith(PNG)
    assert one.read_bytes() == two.read_bytes()
    pixels = np.asarray(Image.open(one).convert("RGB"))
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 300
    # There is something on it, in colour.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (np.ptp(pixels.astype(int), axis=2) > 60).any()


def test_other_numbers_give_another_figure(tmp_path: Path) -> None:
    one, other = tmp_path / "1.png", tmp_path / "2.png"
    lines(one)
    lines(other, [PANELS[0], Panel("q", [Line("b", [5, 7])])])
    assert one.read_bytes() != other.read_bytes()
    bars(one)
    bars(other, {"clean": ([50, 60], [1, 1])})
    assert one.read_bytes() != other.read_bytes()
    matrix(one)
    matrix(other, [[1, 2, 3], [4, 5, 6]])
    assert one.read_bytes() != other.read_bytes()


def test_ticks_are_whole_numbers_without_an_offset(tmp_path: Path) -> None:
    lines = [Line("", [25.493, 25.5])]
    line_figure(tmp_path / "a.png", "t", [1, 2], [Panel("", lines)], "x", "y")
    # matplotlib writes each text also as a comment beside its paths.
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / "a.svg").read_text())
    assert any(word.startswith("25.49") for word in words)
    assert not any("+" in word for word in words)


def test_panels_that_do_not_fill_a_row_are_drawn(tmp_path: Path) -> None:
    lines(tmp_path / "l.png", [Panel(name, [Line("b", [5, 7])]) for name in "abcd"])
    assert (tmp_path / "l.png").read_bytes().startswith(PNG)


def test_empty_and_equal_matrices_are_drawn(tmp_path: Path) -> None:
    for values in ([[NAN] * 3] * 2, [[1.0] * 3] * 2):
        matrix(tmp_path / "m.png", values)
        assert (tmp_path / "m.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("values", [[[1.0, 2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]], []])
def test_a_matrix_needs_as_many_labels(values: list[list[float]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 row labels and 3 column labels"):
        matrix_figure(tmp_path / "m.png", "", ["r1", "r2"], ["a", "b", "c"], values)


def test_more_series_than_colours_are_drawn(tmp_path: Path) -> None:
    bars(tmp_path / "b.png", {f"s{number}": ([1.0, 2.0], [NAN, NAN]) for number in range(25)})
    assert (tmp_path / "b.png").read_bytes().startswith(PNG)


def test_a_figure_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write the figure"):
        bars(tmp_path / "file" / "b.png")


def test_no_display_is_asked_for(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    bars(tmp_path / "b.png")
    assert loaded or "matplotlib.pyplot" not in sys.modules
