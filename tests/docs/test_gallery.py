"""The gallery has a part and a picture for each of its recipes, and the recipes give what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .gallery import INTRO, LARGEST, ORDER, PAGE, PICTURES, RECIPES, parts_of, section

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_recipe_has_a_part() -> None:
    assert TEXT.startswith(INTRO)
    assert list(parts_of(TEXT)) == list(ORDER)
    assert sorted(path.stem for path in RECIPES.glob("*.toml")) == sorted(ORDER)
    assert len(ORDER) >= 10


def test_recipes_are_short_and_pictures_small() -> None:
    for path in RECIPES.glob("*.toml"):
        assert 10 <= len(path.read_text(encoding="utf-8").splitlines()) <= 30, path.name
    shown = re.findall(r"\]\(gallery/([^)]+)\)", TEXT)
    assert sorted(shown) == sorted(path.name for path in PICTURES.iterdir())
    assert all(0 < path.stat().st_size <= LARGEST for path in PICTURES.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ORDER)
def test_a_recipe_gives_what_the_page_shows(name: str, tmp_path: Path) -> None:
    parts = section(name, tmp_path / "run", tmp_path), parts_of(TEXT)[name]
    made, shown = (
        [line.split("|")[1] for line in part.splitlines() if line.startswith("|")] for part in parts
    )
    assert made == shown
    assert len(made) >= 4  # head, line, clean, and at least one attack
