"""Tables of text that are written for the terminal, as Markdown, and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from .markup import escape, table_html

# Characters of a table beside the text of a cell: two blanks and a line.
_FRAME = 3


@dataclass(frozen=True)
class Cell:
    """Hold the text of a cell, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """Hold a table.

    Attributes:
        title: of the table.
        heads: of the columns.
        lines: as many cells as there are heads.
        notes: below it.
        labels: columns at the left that name a line; they come again where a table is parted.
    """

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1


def rich_tables(sheet: Sheet, width: int) -> list[Table | Text]:
    """Lay a sheet out for a terminal; columns that do not fit go into further tables.

    Args:
        sheet: the best of a column is bold, and has a star where there are no colours.
        width: of the terminal.
    """
    texts = [[f"{cell.text} *" if cell.best else cell.text for cell in line] for line in sheet.lines]
    needs = [
        _FRAME + max([min(len(head), 20), *(len(line[at]) for line in texts)])
        for at, head in enumerate(sheet.heads)
    ]
    parts: list[list[int]] = []
    left = 0
    for at in range(sheet.labels, len(sheet.heads)):
        if not parts or needs[at] > left:
            parts.append([])
            left = width - 1 - sum(needs[: sheet.labels])
        parts[-1].append(at)
        left -= needs[at]
    tables: list[Table | Text] = []
    for part in parts or [[]]:
        table = Table(title=None if tables else Text(sheet.title), title_justify="left")
        chosen = [*range(sheet.labels), *part]
        for at in chosen:
            # As Text, for brackets in a label would be taken for markup.
            justify: Literal["left", "right"] = "left" if at < sheet.labels else "right"
            table.add_column(Text(sheet.heads[at]), justify=justify, overflow="fold")
        for line, shown in zip(sheet.lines, texts, strict=True):
            table.add_row(*(Text(shown[at], style="bold green" if line[at].best else "") for at in chosen))
        tables.append(table)
    return [*tables, *map(Text, sheet.notes)]


def markdown(sheet: Sheet) -> str:
    """Return a sheet as a Markdown table; the best of a column is bold."""

    def text(cell: Cell) -> str:
        plain = cell.text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
        return f"**{plain}**" if cell.best and plain else plain

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [
        line([text(Cell(head)) for head in sheet.heads]),
        line(["---"] * sheet.labels + ["---:"] * (len(sheet.heads) - sheet.labels)),
        *(line([text(cell) for cell in cells]) for cells in sheet.lines),
    ]
    notes = "".join(f"\n{text(Cell(note))}\n" for note in sheet.notes)
    return f"### {text(Cell(sheet.title))}\n\n" + "\n".join(rows) + "\n" + notes


def sheet_html(sheet: Sheet) -> str:
    """Return a sheet as HTML, as the terminal would show it if it were wide enough."""
    # One table as wide as it must be: the page lets it scroll.
    table, *notes = rich_tables(sheet, 100_000)
    assert isinstance(table, Table)
    said = "".join(f'<p class="note">{escape(str(note))}</p>\n' for note in notes)
    return table_html(table) + said
