"""The result of a study as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from .sheets import parted
from .threats import threat_text


def spread_text(spread: Mapping[str, Any]) -> str:
    """Return "61.2 ± 1.3 %", "61.2 %" for one seed, or "–" for none."""
    if spread["mean"] is None:
        return "–"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation'] * 100:.1f}"
    return f"{spread['mean'] * 100:.1f}{deviation} %"


def measure_spread_text(spread: Mapping[str, Any]) -> str:
    """Return "31.42 ± 0.70" of a measure in its own units, "31.42" for one seed, or "–" for none."""
    if spread["mean"] is None:
        return "–"
    return f"{spread['mean']:.2f}" + ("" if spread["deviation"] is None else f" ± {spread['deviation']:.2f}")


def study_tables(body: Mapping[str, Any], width: int) -> list[Table | Text]:
    """Lay out the result of a study: a row for each cell, a column for each axis and evaluation row.

    Args:
        body: content of the study's result.json.
        width: terminal width; columns that do not fit go into further tables.
    """
    return [*parted(study_table(body), width, labels=len(body["axes"]) or 1), *study_notes(body)]


def study_table(body: Mapping[str, Any]) -> Table:
    """Return the content of a study's result.json as one table."""
    axes = [str(axis["name"]) for axis in body["axes"]]
    columns = list(_columns(body))
    # Text, because rich would parse brackets in a label as markup.
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
    """Return notes: what the numbers are, where threat models differ, and what failed."""
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
    for name in body.get("measures", ()):
        yield name, [measure_spread_text(cell["measures"][name]) for cell in body["cells"]]
    grades = [
        ", ".join(run["audit"]["grade"] for run in cell["runs"] if run["audit"]) for cell in body["cells"]
    ]
    if any(grades):
        yield "audit", grades


def _threats_that_differ(body: Mapping[str, Any]) -> list[str]:
    """Return notes on rows whose threat model differs between cells, grouped by threat models."""
    said: dict[str, list[str]] = {}
    for row in dict.fromkeys(row for cell in body["cells"] for row in cell.get("threats", {})):
        cells: dict[str, list[str]] = {}
        for cell in body["cells"]:
            # Results of older studies do not contain threat models.
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
