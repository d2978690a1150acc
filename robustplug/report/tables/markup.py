"""Convert tables and texts of the terminal to HTML, so that both have the same content."""

from __future__ import annotations

import html
from collections.abc import Mapping
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from ..printable import printable

# CSS classes for the colours of the terminal; the words alone carry the meaning, too.
_CLASSES = {"red": "bad", "yellow": "doubt", "green": "good", "dim": "dim"}
# A table with a longer cell contains sentences; a narrow page stacks the cells of its rows.
_PROSE = 60


def escape(text: str) -> str:
    """Return a text as HTML; control characters, which HTML forbids, become visible symbols."""
    return html.escape(printable(text))


def text_html(text: Text | str) -> str:
    """Return a text with its styles as HTML; line breaks are kept."""
    if isinstance(text, str):
        return escape(text).replace("\n", "<br>")
    # Spans may overlap, but the styles are constant between two neighbouring ends.
    ends = sorted({0, len(text.plain), *(at for span in text.spans for at in (span.start, span.end))})
    parts = []
    for start, end in pairwise(ends):
        styles = " ".join(str(span.style) for span in text.spans if span.start <= start and end <= span.end)
        parts.append(_styled(text_html(text.plain[start:end]), styles))
    return _styled("".join(parts), str(text.style))


def _styled(content: str, styles: str) -> str:
    words = styles.split()
    names = [_CLASSES[word] for word in words if word in _CLASSES]
    if names:
        content = f'<span class="{" ".join(names)}">{content}</span>'
    return f"<strong>{content}</strong>" if "bold" in words else content


def table_html(table: Table) -> str:
    """Return a table of the terminal as HTML: the first column heads the rows, the title is a heading."""
    heads, numeric = [], []
    for column in table.columns:
        numeric.append(' class="n"' if column.justify == "right" else "")
        heads.append(f'<th scope="col"{numeric[-1]}>{text_html(_shown(column.header))}</th>')
    bodies = ["<tbody>\n"]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    for (first, *others), row in zip(rows, table.rows, strict=True):
        cells = [f'<th scope="row">{text_html(_shown(first))}</th>']
        cells += [
            f"<td{kind}>{text_html(_shown(cell))}</td>"
            for kind, cell in zip(numeric[1:], others, strict=True)
        ]
        bodies.append(f"<tr>{''.join(cells)}</tr>\n")
        if row.end_section:
            bodies.append("</tbody>\n<tbody>\n")
    bodies.append("</tbody>")
    # A caption would be cut off where the table is wider than the page; a heading is not.
    title = "" if table.title is None else f"<h3>{text_html(_shown(table.title))}</h3>\n"
    note = "" if table.caption is None else f'<p class="note">{text_html(_shown(table.caption))}</p>\n'
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    prose = not any(numeric) and any(len(str(cell)) > _PROSE for row in table.columns for cell in row.cells)
    kind = ' class="prose"' if prose else ""
    frame = _framed(f"<table{kind}>\n{head}\n{''.join(bodies)}</table>", _plain(table.title) or "table")
    return title + frame + note


def pairs_html(pairs: Mapping[str, str], title: str) -> str:
    """Return names and values as a table of two columns; the title is for screen readers only."""
    rows = "".join(
        f'<tr><th scope="row">{text_html(name)}</th><td>{text_html(value)}</td></tr>\n'
        for name, value in pairs.items()
    )
    return _framed(f'<table class="pairs">\n<tbody>\n{rows}</tbody></table>', title)


def _framed(table: str, name: str) -> str:
    """Wrap a table in a frame in which a wide table scrolls, by keyboard, too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>\n'


def _shown(value: object) -> Text | str:
    return value if isinstance(value, Text) else str(value)


def _plain(value: object) -> str:
    return "" if value is None else value.plain if isinstance(value, Text) else str(value)
