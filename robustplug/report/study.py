"""What a study ends in: a table in the terminal, and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from .figures import Line, Panel, bar_figure, line_figure
from .sheets import parted
from .tables import threat_text


def spread_text(spread: Mapping[str, Any]) -> str:
    """Return "61.2 ± 1.3 %", "61.2 %" for one seed, "–" for none."""
    if spread["mean"] is None:
        return "–"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation'] * 100:.1f}"
    return f"{spread['mean'] * 100:.1f}{deviation} %"


def study_tables(body: Mapping[str, Any], width: int) -> list[Table | Text]:
    """Lay out the result of a study: a row for each cell, a column for each axis and evaluation row.

    Args:
        body: as result.json holds it.
        width: of the terminal; columns that do not fit go into further tables.
    """
    return [*parted(study_table(body), width, labels=len(body["axes"]) or 1), *study_notes(body)]


def study_table(body: Mapping[str, Any]) -> Table:
    """Return the result of a study, as result.json holds it, as one table."""
    axes = [str(axis["name"]) for axis in body["axes"]]
    columns = list(_columns(body))
    # As Text, for brackets in a label would be taken for markup.
    table = Table(title=Text(title_of(body)), title_justify="left")
    for head in axes or ["recipe"]:
        table.add_column(Text(head), overflow="fold")
    for name, _ in columns:
        table.add_column(Text(name), justify="right", overflow="fold")
    for at, cell in enumerate(body["cells"]):
        key = [str(cell["labels"][axis]) for axis in axes] or [str(body["base"])]
        style = "red" if any(run["status"] == "failed" for run in cell["runs"]) else ""
        table.add_row(*map(Text, [*key, *(texts[at] for _, texts in columns)]), style=style)
    return table


def study_notes(body: Mapping[str, Any]) -> list[Text]:
    """Say what the numbers of a study are, where they do not compare, and what failed."""
    notes = [Text(line, style="yellow") for line in _threats_that_differ(body)]
    if len(body["seeds"]) > 1:
        seeds = f"Mean and sample standard deviation over {len(body['seeds'])} seeds"
        notes.insert(0, Text(f"{seeds}; fewer where a cell failed." if _failures(body) else f"{seeds}."))
    return [*notes, *(Text(line, style="red") for line in _failures(body))]


def title_of(body: Mapping[str, Any]) -> str:
    """Return "sprout-ablation · sprout, 6 cells × 3 seeds"."""
    cells, seeds = len(body["cells"]), len(body["seeds"])
    counts = f"{cells} cell{'s' * (cells != 1)} × {seeds} seed{'s' * (seeds != 1)}"
    return f"{body['name']} · {body['base']}, {counts}"


def _columns(body: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the columns of results: head, and a text for each cell."""
    for row in body["rows"]:
        yield row, [spread_text(cell["rows"][row]) for cell in body["cells"]]
    grades = [
        ", ".join(run["audit"]["grade"] for run in cell["runs"] if run["audit"]) for cell in body["cells"]
    ]
    if any(grades):
        yield "audit", grades


def _threats_that_differ(body: Mapping[str, Any]) -> list[str]:
    """Say which rows stand for another threat model in some cells than in others, those alike together."""
    said: dict[str, list[str]] = {}
    for row in body["rows"]:
        cells: dict[str, list[str]] = {}
        for cell in body["cells"]:
            # Studies that were made before their results kept it say nothing.
            threat = cell.get("threats", {}).get(row)
            if threat:
                cells.setdefault(threat_text(threat), []).append(str(cell["name"]))
        if len(cells) > 1:
            where = "; ".join(f"{threat}: {', '.join(names)}" for threat, names in cells.items())
            said.setdefault(where, []).append(row)
    return [
        f"Not the same threat model in all cells: {', '.join(rows)}. {where}." for where, rows in said.items()
    ]


def _failures(body: Mapping[str, Any]) -> list[str]:
    return [
        f"{cell['name']}{', ' * bool(cell['name'])}seed={run['seed']} failed: {run['reason']}"
        for cell in body["cells"]
        for run in cell["runs"]
        if run["status"] == "failed"
    ]


def study_figure(body: Mapping[str, Any], path: Path) -> bool:
    """Draw the result of a study, and tell whether there was anything to draw.

    One axis of numbers gives a line for each evaluation row. Two axes of which one is of numbers give a
    panel for each evaluation row, with a line for each value of the other. All else gives bars.

    Args:
        body: as result.json holds it.
        path: of the PNG.

    Raises:
        RunError: it cannot be written.
    """
    axes, cells, rows = body["axes"], body["cells"], body["rows"]
    if not any(cell["rows"][row]["n"] for cell in cells for row in rows):
        return False
    numeric = [at for at, axis in enumerate(axes) if axis["numbers"] is not None]
    title, label, limits = title_of(body), "accuracy (%)", (0.0, 100.0)
    if len(axes) == 1 and numeric:
        panel = Panel("", [Line(row, *_values(cells, row)) for row in rows])
        line_figure(path, title, axes[0]["numbers"], [panel], axes[0]["name"], label, limits)
    elif len(axes) == 2 and numeric:
        first = numeric[0]
        along, other = axes[first], axes[1 - first]
        panels = []
        for row in rows:
            lines = []
            for value in other["labels"]:
                own = [cell for cell in cells if cell["labels"][other["name"]] == value]
                lines.append(Line(value, *_values(own, row)))
            panels.append(Panel(row, lines))
        line_figure(path, title, along["numbers"], panels, along["name"], label, limits, other["name"])
    else:
        names = [cell["name"].replace(", ", "\n") or body["base"] for cell in cells]
        bar_figure(path, title, names, {row: _values(cells, row) for row in rows}, label, limits)
    return True


def _values(cells: Sequence[Mapping[str, Any]], row: str) -> tuple[list[float], list[float]]:
    """Return means and deviations in per cent, NaN where there is none."""
    spreads = [cell["rows"][row] for cell in cells]
    mean, deviation = ([_percent(spread[key]) for spread in spreads] for key in ("mean", "deviation"))
    return mean, deviation


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value
