"""Figures that show models, cells and the loss around a sample; what they say in words is checked too."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from robustplug.report.figures.batchnorm import batchnorm_figure, first_batchnorm
from robustplug.report.figures.canvas import course, looks
from robustplug.report.figures.plots import Point, radar_figure, surface_figure, trade_off_figure
from robustplug.report.pages.page import read_picture


def test_28_lines_differ_without_their_colours_mattering_alone() -> None:
    found = looks(28)
    assert len({(look.colour, look.dash) for look in found}) == 28
    # In print without colour, neighbours differ still.
    assert all(a.dash != b.dash and a.marker != b.marker for a, b in pairwise(found))


def test_a_course_is_told_by_its_ends_and_extremes() -> None:
    assert course([0, 1, 2], [98, 40, 12]) == "from 98 at 0 to 12 at 2"
    assert course([0, 1, 2], [1, 5, 2]) == "from 1 at 0 to 2 at 2, minimum 1, maximum 5"
    assert course([0, 1], [math.nan, 3]) == "3 at 1"
    assert course([0], [math.nan]) == "no values"


def test_a_trade_off_names_its_points_and_the_front(tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    points = [
        Point("PGD-AT", 60, 90, True, (1, 2), (0, 1)),
        Point("a_$b$ <i>", 50, 95, True),
        Point("worse", 50, 80, False),
    ]
    trade_off_figure(path, "title", points, "robust (%)", "clean (%)")
    words = read_picture(path).description
    assert "PGD-AT at 60 and 90 (on the front)" in words
    assert "a_$b$ <i> at 50 and 95 (on the front), worse at 50 and 80." in words
    ElementTree.parse(path.with_suffix(".svg"))


def test_a_radar_tells_all_values_and_their_mean(tmp_path: Path) -> None:
    path = tmp_path / "r.png"
    shapes = {"one": [1.0, 0.5, math.nan], "two": [0.2, 1.0, 1.0]}
    radar_figure(path, "title", ["clean", "all of\nthe audit", "speed"], shapes, "Note.")
    words = read_picture(path).description
    assert words.startswith("title. Note. one: clean 1.00, all of the audit 0.50, speed missing; mean 0.50.")
    assert "two: clean 0.20, all of the audit 1.00, speed 1.00; mean 0.73." in words


def test_a_surface_tells_how_the_heights_rise_along_the_first_move(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    along = [-1.0, 0.0, 1.0]
    heights = [[a + 10 * b for a in along] for b in along]
    surface_figure(path, "title", along, heights, ("first", "second", "loss"), 0.5)
    words = read_picture(path).description
    assert "loss from -11 to 11" in words
    assert "it is -1 at -1, 0 at 0, 1 at 1." in words


def test_the_first_batchnorm_is_drawn_for_each_model(tmp_path: Path) -> None:
    wide, narrow, none = (nn.Sequential(nn.Conv2d(1, n, 3), nn.BatchNorm2d(n)) for n in (4, 3, 2))
    none[1] = nn.BatchNorm2d(2, track_running_stats=False)
    found = first_batchnorm(wide)
    assert found is not None
    assert found[0] == "1"
    with torch.no_grad():
        found[1].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    path = tmp_path / "b.png"
    assert batchnorm_figure(path, "title", {"wide": wide, "copy": wide, "narrow": narrow, "none": none})
    words = read_picture(path).description
    assert "rescaling γ: wide from 1 at 0 to 4 at 3; copy from 1 at 0 to 4 at 3." in words
    assert "narrow" not in words
    assert not batchnorm_figure(tmp_path / "n.png", "title", {"none": none})
    assert not (tmp_path / "n.png").exists()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_files_are_always_the_same(kind: str, tmp_path: Path) -> None:
    for name in ("1", "2"):
        radar_figure(tmp_path / f"{name}.png", "t", ["a", "b", "c"], {"m": [1, 1, 0.5]}, "n")
    assert (tmp_path / f"1.{kind}").read_bytes() == (tmp_path / f"2.{kind}").read_bytes()
