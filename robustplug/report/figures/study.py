"""The result of a study as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..tables.study import title_of
from .charts import Line, Panel, bar_figure, line_figure


def study_figure(body: Mapping[str, Any], path: Path) -> bool:
    """Draw the result of a study, and return whether there was anything to draw.

    One numeric axis produces a line for each evaluation row. Two axes, at least one of them numeric, produce
    a panel for each evaluation row, with a line for each value of the other axis. All other studies produce
    bars.

    Args:
        body: content of the study's result.json.
        path: path of the PNG.

    Raises:
        RunError: the figure cannot be written.
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
    """Return means and deviations in per cent, NaN for none."""
    spreads = [cell["rows"][row] for cell in cells]
    mean, deviation = ([_percent(spread[key]) for spread in spreads] for key in ("mean", "deviation"))
    return mean, deviation


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value
