"""Tables of text, for the terminal, as Markdown, and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Column, Table
from rich.text import Text

from .markup import escape, table_html

# Widths in a terminal that is too narrow: of a label column, and of the heading of another column.
_LABEL, _HEAD = 14, 20


@dataclass(frozen=True)
class Cell:
    """Hold the text of a cell, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """Hold a table.

    Attributes:
        title: title of the table.
        heads: column headings.
        lines: lines of the table, with a cell for each heading.
        notes: notes below the table.
        labels: number of columns at the left that name a line; each part of a split table repeats them.
    """

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1


def parted(table: Table, width: int, labels: int = 1) -> list[Table]:
    """Split a table to fit a terminal; columns that do not fit go into further tables.

    Args:
        table: table to split.
        width: terminal width.
        labels: number of columns at the left that each table repeats, and whose text may be folded.
    """
    frame = table.padding[1] + table.padding[3] + 1
    needs = [frame + _widest(column) for column in table.columns]
    named = sum(min(need, frame + _LABEL) for need in needs[:labels])
    parts: list[list[int]] = []
    left = 0
    for at in range(labels, len(needs)):
        if not parts or needs[at] > left:
            parts.append([])
            left = width - 1 - named
        parts[-1].append(at)
        left -= needs[at]
    tables = []
    for part in parts or [[]]:
        one = Table(box=table.box, padding=table.padding, show_edge=table.show_edge)
        one.title_justify = one.caption_justify = "left"
        room = width - 1 - sum(needs[at] for at in part)
        most = None if sum(needs[:labels]) <= room else max(_LABEL, room // labels - frame)
        for at in (*range(labels), *part):
            column = table.columns[at]
            one.add_column(
                column.header,
                justify=column.justify,
                no_wrap=column.no_wrap,
                overflow="fold",
                max_width=most if at < labels else None,
            )
        cells = zip(*(table.columns[at].cells for at in (*range(labels), *part)), strict=True)
        for row, line in zip(table.rows, cells, strict=True):
            one.add_row(*line, style=row.style, end_section=row.end_section)
        tables.append(one)
    tables[0].title, tables[-1].caption = table.title, table.caption
    return tables


def _widest(column: Column) -> int:
    """Return the characters of the longest line of a column; a long heading may be folded."""
    lines = [line for cell in column.cells for line in str(cell).split("\n")]
    return max([min(len(str(column.header)), _HEAD), *map(len, lines)])


def rich_tables(sheet: Sheet, width: int) -> list[Table | Text]:
    """Lay out a sheet for a terminal; columns that do not fit go into further tables.

    Args:
        sheet: sheet to show; the best of a column is bold and starred, for terminals without colour.
        width: terminal width.
    """
    return [*parted(_table(sheet), width, sheet.labels), *map(Text, sheet.notes)]


def _table(sheet: Sheet) -> Table:
    table = Table(title=Text(sheet.title), title_justify="left")
    for at, head in enumerate(sheet.heads):
        # Text, because rich would parse brackets in a label as markup.
        justify: Literal["left", "right"] = "left" if at < sheet.labels else "right"
        table.add_column(Text(head), justify=justify)
    for line in sheet.lines:
        table.add_row(
            *(
                Text(f"{cell.text} *" if cell.best else cell.text, style="bold green" if cell.best else "")
                for cell in line
            )
        )
    return table


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
    """Return a sheet as HTML: one table in full width, which scrolls within the page."""
    said = "".join(f'<p class="note">{escape(note)}</p>\n' for note in sheet.notes)
    return table_html(_table(sheet)) + said
