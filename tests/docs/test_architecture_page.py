"""docs/architecture.md against the tree."""

from __future__ import annotations

import re

from .generated import ROOT, layers, made

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_room_is_in_the_map_and_in_the_order_of_imports() -> None:
    shown = re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", TEXT, re.M)
    named = {name for layer in layers() for name in layer}
    assert set(shown) == named - {"worker", "__main__"}
    folders = {path.parent.name for path in (ROOT / "robustplug").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "robustplug").glob("*.py")} - {"__init__"}
    assert named == folders | modules
    order = {name: number for number, layer in enumerate(layers()) for name in layer}
    assert [order[name] for name in shown] == sorted(order[name] for name in shown)
    assert made(TEXT) == TEXT


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:[a-z_.]+/)+[a-z_]*(?:\.py)?|[a-z_]+\.(?:py|toml))`", TEXT)
    assert len(paths) > 40
    for path in paths:
        # Paths in the text are relative to the core; the inner rooms of the map to their room.
        places = [ROOT / path, ROOT / "robustplug" / path, *(ROOT / "robustplug").glob(f"*/{path}")]
        assert any(place.exists() for place in places), path


def test_ten_usual_changes_are_answered() -> None:
    table = TEXT.partition("## Where do I change")[2]
    assert len(re.findall(r"^\| (?!what \||---)", table, re.M)) >= 10
