"""The HTML of a page: escaping, tables, figures, and what a page never holds."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from rich.table import Table
from rich.text import Text

from robustplug.errors import RunError
from robustplug.report.figures.charts import Line, Panel, line_figure
from robustplug.report.pages.page import Section, figure_html, page, read_picture
from robustplug.report.tables.markup import escape, pairs_html, table_html, text_html

EVIL = "</pre><script>alert(1)</script>\"'&"


class Outline(HTMLParser):
    """Collect tags and attributes, and check that what is opened is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_everything_is_escaped() -> None:
    table = Table(title=EVIL, caption=Text(EVIL, style="red"))
    table.add_column(Text(EVIL))
    table.add_column(EVIL, justify="right")
    table.add_row(EVIL, Text.assemble((EVIL, "bold"), EVIL))
    parts = table_html(table) + pairs_html({EVIL: EVIL}, EVIL) + text_html(Text(EVIL, style="bold red"))
    outline = Outline(page(EVIL, f"<p>{escape(EVIL)}</p>", [Section("A", parts)], EVIL))
    assert outline.all("script") == []
    # Title, h1, lead and last line; seven of the table, two of the pairs, one text.
    assert outline.words.count(EVIL) == 4 + 7 + 2 + 1
    assert "\x1b" not in escape("\x1b[31m")


def test_a_table_has_a_heading_and_heads_with_a_scope() -> None:
    table = Table(title="t", caption="note")
    table.add_column("name")
    table.add_column("value", justify="right")
    table.add_row("a", Text("1\n2"))
    table.add_section()
    table.add_row("b", "[red]3[/red]")
    outline = Outline(table_html(table))
    assert [head["scope"] for head in outline.all("th")] == ["col", "col", "row", "row"]
    assert [cell.get("class") for cell in outline.all("td")] == ["n", "n"]
    assert len(outline.all("tbody")) == 2
    assert len(outline.all("h3")) == 1
    # Names are no markup: what looks like it is shown.
    assert "[red]3[/red]" in outline.words
    assert table_html(table).count("<br>") == 1


def test_styles_of_a_text_become_words_and_classes() -> None:
    text = Text.assemble(("82.5%", "bold"), " (78–86)")
    assert text_html(text) == "<strong>82.5%</strong> (78–86)"
    assert text_html(Text("FAIL", style="bold red")) == '<strong><span class="bad">FAIL</span></strong>'
    assert text_html(Text("")) == ""


def test_a_page_says_its_language_and_lets_nothing_in() -> None:
    outline = Outline(page("t", "", [Section("One two", "<p>x</p>"), Section("Empty", "")], "me"))
    assert outline.all("html")[0]["lang"] == "en"
    assert {"header", "main", "footer"} <= {tag for tag, _ in outline.tags}
    assert not outline.all("nav")
    two = Outline(page("t", "", [Section("One two", "x"), Section("Three", "y")]))
    assert [link["href"] for link in two.all("a")] == ["#one-two", "#three"]
    assert two.all("nav")
    assert outline.all("section") == [{"id": "one-two"}]
    (policy,) = (each["content"] for each in outline.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'")
    assert len(outline.all("h1")) == 1


def test_a_figure_brings_its_words_and_its_drawing(tmp_path: Path) -> None:
    path = tmp_path / "f.png"
    line_figure(path, EVIL, [0, 1], [Panel("", [Line("robust", [98.0, 12.0])])], "ε", "accuracy (%)")
    picture = read_picture(path, "look here")
    assert picture.kind == "image/svg+xml"
    assert b"<svg" in picture.data
    assert picture.title == EVIL
    assert "robust from 98 at 0 to 12 at 1" in picture.description
    outline = Outline(figure_html(picture))
    (image,) = outline.all("img")
    assert image["alt"] == picture.description
    data = image["src"].removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(data) == path.with_suffix(".svg").read_bytes()
    # The title is drawn already.
    assert outline.words.strip() == "look here"
    path.with_suffix(".svg").unlink()
    assert read_picture(path).kind == "image/png"


def test_a_figure_of_another_program_is_named_by_its_file(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "my-figure.png")
    picture = read_picture(tmp_path / "my-figure.png")
    assert (picture.title, picture.width, picture.height) == ("my figure", 30, 20)
    assert picture.description
    assert "<figcaption><b>my figure.</b></figcaption>" in figure_html(picture)
    words = PngImagePlugin.PngInfo()
    words.add_text("Description", "ψ < 3")
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png", pnginfo=words, dpi=(192, 192))
    assert read_picture(tmp_path / "b.png").description == "ψ < 3"
    assert read_picture(tmp_path / "b.png").width in (1, 2)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_a_broken_picture_is_one_message(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.png cannot be read"):
        read_picture(tmp_path / "x.png")
