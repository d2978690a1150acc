"""The result of a study as a figure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..tables.study import title_of
from .charts import Line, Panel, bar_figure, line_figure


def study_figures(body: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Draw the result of a study, and yield the files: the accuracies, and each measure in its own units.

    Args:
        body: content of the study's result.json.
        folder: folder of the PNGs.

    Raises:
        RunError: a figure cannot be written.
    """
    if study_figure(body, folder / "study.png"):
        yield folder / "study.png"
    measures = body.get("measures", ())
    for measure in dict.fromkeys(name.rpartition(": ")[2] for name in measures):
        known = [name for name in measures if name.rpartition(": ")[2] == measure]
        path = folder / f"study-{re.sub('[^a-z]+', '-', measure.lower()).strip('-')}.png"
        cells = [{**cell, "rows": {name: cell["measures"][name] for name in known}} for cell in body["cells"]]
        if study_figure({**body, "rows": known, "cells": cells}, path, measure):
            yield path


def study_figure(body: Mapping[str, Any], path: Path, measure: str = "") -> bool:
    """Draw the rows of a study, and return whether there was anything to draw.

    One numeric axis produces a line for each evaluation row. Two axes, at least one of them numeric, produce
    a panel for each evaluation row, with a line for each value of the other axis. All other studies produce
    bars.

    Args:
        body: content of the study's result.json.
        path: path of the PNG.
        measure: what the rows state, in its own units; "" for accuracies in [0, 1].

    Raises:
        RunError: the figure cannot be written.
    """
    axes, cells, rows = body["axes"], body["cells"], body["rows"]
    if not any(cell["rows"][row]["n"] for cell in cells for row in rows):
        return False
    numeric = [at for at, axis in enumerate(axes) if axis["numbers"] is not None]
    title, label, factor = title_of(body), measure or "accuracy (%)", 1.0 if measure else 100.0
    limits = None if measure else (0.0, 100.0)
    if len(axes) == 1 and numeric:
        panel = Panel("", [Line(row, *_values(cells, row, factor)) for row in rows])
        line_figure(path, title, axes[0]["numbers"], [panel], axes[0]["name"], label, limits)
    elif len(axes) == 2 and numeric:
        first = numeric[0]
        along, other = axes[first], axes[1 - first]
        panels = []
        for row in rows:
            lines = []
            for value in other["labels"]:
                own = [cell for cell in cells if cell["labels"][other["name"]] == value]
                lines.append(Line(value, *_values(own, row, factor)))
            panels.append(Panel(row, lines))
        line_figure(path, title, along["numbers"], panels, along["name"], label, limits, other["name"])
    else:
        names = [cell["name"].replace(", ", "\n") or body["base"] for cell in cells]
        bar_figure(path, title, names, {row: _values(cells, row, factor) for row in rows}, label, limits)
    return True


def _values(cells: Sequence[Mapping[str, Any]], row: str, factor: float) -> tuple[list[float], list[float]]:
    """Return means and deviations times a factor, NaN for none."""
    spreads = [cell["rows"][row] for cell in cells]
    mean, deviation = (
        [math.nan if spread[key] is None else factor * spread[key] for spread in spreads]
        for key in ("mean", "deviation")
    )
    return mean, deviation
