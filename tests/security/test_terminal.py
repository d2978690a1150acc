"""No text of a user, a recipe or a file controls the terminal, is parsed as markup, or becomes HTML."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from robustplug.core.types import Progress
from robustplug.report.board import Line, StudyBoard
from robustplug.report.console import RichReporter
from robustplug.report.printable import printable
from robustplug.report.tables.markup import escape, table_html
from robustplug.report.terminal import Terminal

from .hostile import NAMES, refused

HOSTILE = "-".join(NAMES.values())
ROOT = Path(__file__).parents[2]


def plain(text: str) -> bool:
    return re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text) is None


class Screen(Terminal):
    """A terminal that keeps what it prints, without the codes of rich itself."""

    def __init__(self) -> None:
        super().__init__()
        self.file = io.StringIO()
        self.width = 400

    @property
    def text(self) -> str:
        """Return what was printed."""
        assert isinstance(self.file, io.StringIO)
        return self.file.getvalue()


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_what_controls_a_terminal_becomes_visible(name: str) -> None:
    shown = printable(name)
    assert plain(shown)
    assert printable(shown) == shown
    assert shown.encode()
    assert printable("Größe: 3 × 4 → ✓ 猫\n\tε") == "Größe: 3 × 4 → ✓ 猫\n\tε"


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_rich_prints_texts_as_they_are(name: str) -> None:
    screen = Screen()
    table = Table(title=name, caption=name)
    table.add_column(name)
    table.add_row(name)
    table.add_row(Text(name, style="bold"))
    screen.print(name, table, Text(name), f"Everything is in {name}")
    assert plain(screen.text)
    flat = "".join(screen.text.split())
    # rich itself drops a few control characters, such as the bell.
    shown = "".join(printable(name.replace("\x07", "")).split())
    assert shown.partition("\u241b")[0] in flat
    assert flat.count(shown[:3]) >= 5


def test_progress_shows_names_as_they_are() -> None:
    screen = Screen()
    screen._force_terminal = True
    with RichReporter(screen) as reporter:
        reporter.attack(HOSTILE, 1, 2)
        reporter.batch(Progress(epoch=0, epochs=1, batch=0, batches=1), {"loss": 1.0, f"loss/{HOSTILE}": 1.0})
        reporter.warn(HOSTILE)
        screen.print(reporter._render())
    with StudyBoard(screen) as board:
        board.lines = [Line(HOSTILE, "running", HOSTILE), Line(HOSTILE, "failed", HOSTILE)]
        screen.print(board.render())
    assert "]0;title" in screen.text
    assert "\x1b]" not in screen.text
    assert "\x07" not in screen.text


def test_wrong_uses_print_names_as_they_are() -> None:
    for arguments in ((HOSTILE,), ("train", f"--{HOSTILE}"), ("train", HOSTILE), ("show", HOSTILE)):
        assert "\u241b" in refused(*arguments) or "\\x1b" in refused(*arguments)


def test_html_contains_no_markup_of_names() -> None:
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE, style="bold red"))
    for made in (escape(HOSTILE), table_html(table)):
        assert "<img" not in made
        assert plain(made)
        assert made.encode()


def test_everything_is_printed_in_one_place() -> None:
    """A new print, click.echo or Console would let texts through as they are."""
    allowed = {"echo.py", "terminal.py"}
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in ("robustplug", "plugins")
        for path in (ROOT / room).rglob("*.py")
        if path.name not in allowed and "testing" not in path.parts and "templates" not in path.parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(click\.s?echo|(?<!\w)Console|(?<![\w.])print)\(", line)
    ]
    assert [each for each in found if '"interrupted"' not in each] == []


def test_names_that_are_no_text_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "\\xff" in refused("validate", os.fsdecode(b"\xff.toml"))
