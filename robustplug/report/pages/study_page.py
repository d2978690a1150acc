"""The page of a study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ...core.reporting import headlines
from ...errors import RunError
from ...runs.folder import REPORT
from ...studies.stored import read_study_body
from ..figures.plots import radar_figure
from ..figures.study import study_figures
from ..material import Material, flat, read_material
from ..tables.comparison import compare
from ..tables.markup import escape, table_html, text_html
from ..tables.study import study_notes, study_table, title_of
from .compared import comparison_html
from .page import Section, figures_html, page, read_picture, refuse_other_page
from .run_page import BESIDE, FIGURES, PAGE, environment_html, facts_html, recipe_html

# A radar chart with fewer axes is a line, and more charts on a page are unreadable.
_AXES, _RADARS = 3, 16


@dataclass(frozen=True)
class Cell:
    """Hold a cell of a study and the content of its run folders.

    Attributes:
        name: name of the cell.
        runs: runs that can be read.
    """

    name: str
    runs: Sequence[Material]

    def mean(self, values: Sequence[float]) -> tuple[float, float]:
        """Return mean and sample standard deviation of some values; NaN for none."""
        known = [value for value in values if not math.isnan(value)]
        deviation = statistics.stdev(known) if len(known) > 1 else math.nan
        return (statistics.fmean(known) if known else math.nan), deviation


def study_report(folder: Path, out: Path) -> str:
    """Return the page of a study; write its figures beside it.

    Args:
        folder: folder of the study.
        out: folder of the report.

    Raises:
        RunError: the folder contains no study, or a file cannot be written.
    """
    (body, problems), figures = read_study_body(folder), out / FIGURES
    refuse_other_page(out / PAGE, None if out == folder / REPORT else figures)
    cells = [Cell(str(cell["name"] or body["base"]), _runs(folder, cell, problems)) for cell in body["cells"]]
    runs = [run for cell in cells for run in cell.runs]
    for run in runs:
        problems += run.problems
    pictures = []
    for path, note in (
        *_cells(body, figures),
        *_radar(cells, figures, str(body["name"])),
    ):
        try:
            pictures.append(read_picture(path, note))
        except RunError as error:
            problems.append(f"the figure {error}")
    content = table_html(study_table(body))
    content += "".join(f"<p>{text_html(note)}</p>\n" for note in study_notes(body))
    suites = dict.fromkeys(["", *(name for run in runs for name in run.evaluations)])
    comparisons = [compare([folder], suite) for suite in suites]
    compared = "".join(comparison_html(each, figures) for each in comparisons if each.groups)
    first = runs[0] if runs else None
    recipe = "" if first is None else recipe_html(first.recipe)
    if first is not None and len(runs) > 1:
        recipe = (
            f"<p>The recipe of the first run, {escape(first.folder.name)}.</p>\n{recipe}{_differing(cells)}"
        )
    sections = [
        Section("Cells", content + figures_html(pictures)),
        Section("Comparison", compared),
        Section("Audits", _audits(cells)),
        Section("Recipe", recipe),
        Section("Environment", "" if first is None else environment_html(first.environment)),
        Section("Could not be read", "".join(f'<p class="doubt">{escape(each)}</p>\n' for each in problems)),
    ]
    return page(title_of(body), _lead(body, runs), sections, BESIDE)


def _runs(folder: Path, cell: Mapping[str, Any], problems: list[str]) -> list[Material]:
    found = []
    for run in cell["runs"]:
        try:
            found.append(read_material(folder / str(run["folder"])))
        except RunError as error:
            problems.append(str(error))
    return found


def _lead(body: Mapping[str, Any], runs: Sequence[Material]) -> str:
    statuses = [run["status"] for cell in body["cells"] for run in cell["runs"]]
    failed = statuses.count("failed")
    seconds = sum(run["seconds"] or 0.0 for cell in body["cells"] for run in cell["runs"])
    facts = [
        (
            "cells",
            str(len(body["cells"])),
            f"{len(body['axes'])} {'axis' if len(body['axes']) == 1 else 'axes'}",
        ),
        ("seeds", str(len(body["seeds"])), ", ".join(map(str, body["seeds"]))),
        ("runs", str(len(statuses)), f"{failed} failed" if failed else "none failed"),
        (
            "training",
            f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s",
            "all runs together",
        ),
    ]
    results = [run.result for run in runs if run.result is not None]
    said = f"Base recipe {body['base']}"
    if results:
        one = results[0]
        said += f" · {one.meta.get('task')}, {one.split} split, {one.samples} samples"
    return f'<p class="subtitle">{escape(said)}</p>\n{facts_html(facts)}'


def _cells(body: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    note = "Mean over the seeds; bars show the sample standard deviation." if len(body["seeds"]) > 1 else ""
    return [(path, note) for path in study_figures(body, folder)]


def own_worst_case(run: Material) -> float:
    """Return the worst case of the attacks of a run's own evaluation; NaN if there are none."""
    chains = [] if run.result is None else run.result.meta.get("worst_cases") or []
    return float(chains[0]["accuracy"]) if chains else math.nan


def clean(run: Material) -> float:
    """Return the clean accuracy of a run's own evaluation."""
    return math.nan if run.result is None else run.result.attacks[0].accuracy


def _radar(cells: Sequence[Cell], folder: Path, name: str) -> list[tuple[Path, str]]:
    values = {cell.name: _dimensions(cell) for cell in cells[:_RADARS]}
    axes = [
        axis
        for axis in dict.fromkeys(axis for each in values.values() for axis in each)
        if all(not math.isnan(each.get(axis, math.nan)) for each in values.values())
        and max(each[axis] for each in values.values()) > 0
        and _alike(axis, cells[:_RADARS])
    ]
    if len(axes) < _AXES or len(values) < 2:
        return []
    best = {axis: max(each[axis] for each in values.values()) for axis in axes}
    shapes = {label: [each[axis] / best[axis] for axis in axes] for label, each in values.items()}
    path = folder / "radar.png"
    note = "Each axis is divided by its best value; speed is the inverse of the seconds per epoch."
    radar_figure(path, f"All dimensions, {name}", axes, shapes, note)
    left = len(cells) - len(values)
    return [(path, note + (f" The first {len(values)} cells; {left} more are not drawn." if left else ""))]


def _alike(axis: str, cells: Sequence[Cell]) -> bool:
    """Return whether a worst case has the same threat model in all cells; other axes always compare."""
    threats = [
        chain["threat"]
        for cell in cells
        for run in cell.runs
        for name, result in run.results.items()
        for chain in (result.meta.get("worst_cases") or ())[: None if name else 1]
        if axis == (str(chain["chain"]) if name else "attacks")
    ]
    return all(threat == threats[0] for threat in threats)


def _dimensions(cell: Cell) -> dict[str, float]:
    """Return a cell's values for a radar, as means over its runs; higher is better: SPROUT Fig. 1."""
    found: dict[str, list[float]] = {}
    for run in cell.runs:
        if run.result is not None and headlines(run.result):  # accuracies are not what counts
            continue
        own = {"clean": clean(run), "attacks": own_worst_case(run)}
        for result in run.evaluations.values():
            for chain in result.meta.get("worst_cases") or ():
                own[str(chain["chain"])] = float(chain["accuracy"])
            shifted = [
                row.accuracy for row in result.attacks if row.shift and not row.options and not row.skipped
            ]
            if shifted:
                own["invariance"] = statistics.fmean(shifted)
        if run.audit:
            own["audit\nattacks"] = float(run.audit["accuracy"])
        training = {} if run.result is None else run.result.meta.get("training") or {}
        if training.get("seconds") and training.get("epochs"):
            own["speed"] = training["epochs"] / training["seconds"]
        for axis, value in own.items():
            found.setdefault(axis, []).append(float(value))
    return {axis: cell.mean(values)[0] for axis, values in found.items()}


def _audits(cells: Sequence[Cell]) -> str:
    table = Table(title="Audit of each run", title_justify="left")
    for head in ("run", "grade", "verdict", "withstood every attack"):
        table.add_column(head, justify="right" if head.startswith("withstood") else "left")
    for cell in cells:
        for run in cell.runs:
            if run.audit:
                share = f"{float(run.audit['accuracy']):.1%}"
                said = Text(run.folder.name), Text(str(run.audit["grade"])), Text(str(run.audit["verdict"]))
                table.add_row(*said, Text(share))
    return table_html(table) if table.row_count else ""


def _differing(cells: Sequence[Cell]) -> str:
    """Return a table of the keys in which the recipes of the cells differ, except names and seeds."""
    import tomllib

    recipes: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.runs:
            try:
                recipes[cell.name] = flat(tomllib.loads(cell.runs[0].recipe))
            except tomllib.TOMLDecodeError:
                continue
    keys = dict.fromkeys(key for each in recipes.values() for key in each if key not in ("name", "seed"))
    rows = {key: [_value(each.get(key)) for each in recipes.values()] for key in keys}
    table = Table(title="Differences between the recipes of the cells", title_justify="left")
    for head in ("key", *recipes):
        table.add_column(Text(head))
    for key, values in rows.items():
        if len(set(values)) > 1:
            table.add_row(Text(key), *map(Text, values))
    return table_html(table) if table.row_count else ""


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
