"""A comparison as tables, as CSV, and as a page with its figures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...runs.folder import writing
from ...runs.result_file import note_on_seals
from ..figures.plots import Point, trade_off_figure
from ..tables.comparison import Column, Comparison, Group, Value
from ..tables.markup import escape
from ..tables.measures import compared_measures, compared_rows, measured_beside
from ..tables.sheets import Cell, Sheet, markdown, sheet_html
from ..tables.threats import threat_text, unit_images
from .page import Section, figures_html, page, read_picture

TIED, FRONT = "≈", "◆"


def comparison_sheets(comparison: Comparison) -> list[Sheet]:
    """Lay out a comparison: for each group, its accuracies, and robust accuracy against training cost."""
    sheets = list[Sheet]()
    for number, group in enumerate(comparison.groups):
        sheets += _sheets(comparison, number, group)
    return sheets


def _sheets(comparison: Comparison, number: int, group: Group) -> Iterator[Sheet]:
    """Yield the tables of a group: what its task shows of a result, and costs beside accuracies."""
    lines = {entry.name: entry.results for entry in group.entries}
    if group.measured:
        yield compared_measures(title_of(comparison, number), lines)
        return
    yield _accuracies(comparison, number)
    if beside := measured_beside(lines):
        yield compared_measures(f"{title_of(comparison, number)} · measured", lines, beside)
    if group.robust is not None and any(group.costs):
        yield _compute(group)


def comparison_notes(comparison: Comparison) -> list[str]:
    """Return notes on the tables that cannot be compared, and on the inputs that were left out."""
    groups = comparison.groups
    lines = []
    for number, group in enumerate(groups[1:], start=2):
        other = groups[0]
        keys = dict.fromkeys([*other.setting, *group.setting])
        apart = [
            f"{key} {group.setting.get(key, 'unknown')} instead of {other.setting.get(key, 'unknown')}"
            for key in keys
            if group.setting.get(key) != other.setting.get(key)
        ]
        lines.append(f"Table {number} cannot be compared with table 1: {', '.join(map(_short, apart))}.")
    lines += [f"left out: {name} {reason}" for name, reason in comparison.left_out.items()]
    return [*lines, *note_on_seals(comparison.unsealed)]


def _short(text: str) -> str:
    """Shorten digests to their first characters."""
    return " ".join(word[:12] if len(word) == 64 else word for word in text.split())


def title_of(comparison: Comparison, number: int) -> str:
    """Return "table 1 · digits test split, 360 samples · suite quick"."""
    setting = comparison.groups[number].setting
    table = f"table {number + 1} · " if len(comparison.groups) > 1 else ""
    suite = f" · suite {comparison.suite}" if comparison.suite else ""
    return f"{table}{setting['task']} {setting['split']} split, {setting['samples']} samples{suite}"


def value_text(value: Value | None) -> str:
    """Return "82.5% (78–86)", with ≈ if it is tied with the best, or "–" for None."""
    if value is None:
        return "–"
    return (
        f"{value.mean:.1%} ({value.low * 100:.0f}–{value.high * 100:.0f}){f' {TIED}' if value.tied else ''}"
    )


def _value_cell(value: Value | None) -> Cell:
    return Cell(value_text(value), value is not None and value.best)


def _accuracies(comparison: Comparison, number: int) -> Sheet:
    group = comparison.groups[number]
    shown = _all_columns(group)
    heads = ["run", "method", *(column.name for column in shown)]
    lines: list[tuple[Cell, ...]] = []
    graded, several = any(e.grades for e in group.entries), _several(group)
    for at, entry in enumerate(group.entries):
        cells = [Cell(entry.name), Cell(str(entry.meta.get("method") or entry.meta.get("model") or ""))]
        cells += [_value_cell(column.values[at]) for column in shown]
        if several:
            cells.append(Cell(str(len(entry.results))))
        if any(group.pareto):
            cells.append(Cell(FRONT if group.pareto[at] else ""))
        if graded:
            cells.append(Cell(", ".join(entry.grades)))
        lines.append(tuple(cells))
    heads += ["seeds"] * several + ["front"] * any(group.pareto) + ["audit"] * graded
    notes = tuple(_legend(group)) + group.notes
    return Sheet(title_of(comparison, number), tuple(heads), tuple(lines), notes, labels=2)


def _several(group: Group) -> bool:
    return any(len(entry.results) > 1 for entry in group.entries)


def _legend(group: Group) -> Iterator[str]:
    over = (
        "Student's over the seeds; for one run Wilson's over the samples" if _several(group) else "Wilson's"
    )
    yield f"Accuracy with its 95 % interval ({over})."
    if len(group.entries) > 1:
        test = "Welch's test over seeds" if _several(group) else "McNemar's exact test"
        yield (
            f"Bold or *: the best. {TIED}: no significant difference from the best (p ≥ 0.05, {test}; not "
            "corrected for the number of comparisons)."
        )
    if group.robust is None:
        yield "The lines have no attack in common, so there is no front of clean and robust accuracy."
    elif any(group.pareto):
        yield (
            f"{FRONT}: on the Pareto front of clean and robust accuracy. Robust accuracy: "
            f"{group.robust.name} at {threat_text(group.threat, unit_images(group.entries[0].results[0]))}."
        )


def _compute(group: Group) -> Sheet:
    assert group.robust is not None
    known = [(cost.passes, at, cost) for at, cost in enumerate(group.costs) if cost is not None]
    lines = []
    for _, at, cost in sorted(known, key=lambda item: item[:2]):
        value = group.robust.values[at]
        assert value is not None
        numbers = (
            f"{cost.epochs:g}",
            f"{cost.forwards:,.1f}",
            f"{cost.backwards:,.1f}",
            f"{cost.seconds:,.1f}",
        )
        lines.append(
            (
                Cell(group.entries[at].name),
                *map(Cell, numbers),
                Cell(value_text(value).removesuffix(f" {TIED}"), value.best),
                Cell(FRONT if group.frugal[at] else ""),
            )
        )
    heads = ("run", "epochs", "forwards", "backwards", "seconds", group.robust.name, "front")
    notes = [
        "Forwards and backwards are over the whole training, per training sample; seconds depend on the "
        f"machine. {FRONT}: on the Pareto front of robust accuracy and passes."
    ]
    unknown = [e.name for e, cost in zip(group.entries, group.costs, strict=True) if cost is None]
    if unknown:
        notes.append(f"Without counted passes: {', '.join(unknown)}.")
    return Sheet("robust accuracy by training cost", heads, tuple(lines), tuple(notes))


def comparison_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown."""
    notes = [f"- {note}\n" for note in comparison_notes(comparison)]
    return "\n".join([*map(markdown, comparison_sheets(comparison)), *(["".join(notes)] if notes else [])])


def comparison_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV: a line for each run and evaluation row.

    "accuracy" and its interval are shares in [0, 1]. A task with measures in its place has a line for each of
    them: "measure" is its name, and "value" its mean over the seeds; low and high are stated for one seed.
    """
    file = io.StringIO()
    heads = ["table", "run", "folder", "method", "task", "split", "samples", "seeds", "row", "threat"]
    heads += ["accuracy", "measure", "value", "low", "high", "best", "tied", "pareto", "audit"]
    heads += ["epochs", "forwards", "backwards", "seconds"]
    writer = csv.DictWriter(file, heads, lineterminator="\n")
    writer.writeheader()
    for number, group in enumerate(comparison.groups, start=1):
        lines = _measured_lines(group) if group.measured else _accuracy_lines(group)
        for at, name, threat, numbers in lines:
            entry, cost = group.entries[at], group.costs[at]
            spent = ("epochs", "forwards", "backwards", "seconds")
            writer.writerow(
                {
                    **{key: group.setting[key] for key in ("task", "split", "samples")},
                    **({} if cost is None else {key: getattr(cost, key) for key in spent}),
                    "table": number,
                    "run": entry.name,
                    "folder": entry.folder,
                    "method": entry.meta.get("method"),
                    "seeds": len(entry.results),
                    "row": name,
                    "threat": threat_text(threat, unit_images(entry.results[0])) if threat else "",
                    "audit": " ".join(entry.grades),
                    **numbers,
                }
            )
    return file.getvalue()


# Number of the entry, name of the row, its threat model, and the cells of its numbers.
_Line = tuple[int, str, Mapping[str, Any], Mapping[str, Any]]


def _accuracy_lines(group: Group) -> Iterator[_Line]:
    for column in _all_columns(group):
        for at, value in enumerate(column.values):
            if value is None:
                continue
            numbers = {"accuracy": value.mean, "low": value.low, "high": value.high}
            marks = {"best": value.best, "tied": value.tied, "pareto": group.pareto[at]}
            yield at, column.name, column.threat, {**numbers, **{k: int(v) for k, v in marks.items()}}


def _measured_lines(group: Group) -> Iterator[_Line]:
    for found in compared_rows({entry.name: entry.results for entry in group.entries}):
        for at, entry in enumerate(group.entries):
            rows = found.rows.get(entry.name, ())
            for quantity in found.quantities if rows else ():
                known = [row.measures[quantity.name] for row in rows if quantity.name in row.measures]
                mean = found.means[entry.name][quantity.name]
                ends = {"low": known[0].low, "high": known[0].high} if len(rows) == 1 and known else {}
                if not math.isnan(mean):
                    best = int(mean == found.best[quantity.name])
                    numbers = {"measure": quantity.name, "value": mean, **ends, "best": best}
                    yield at, found.name, rows[0].threat, numbers


def _all_columns(group: Group) -> list[Column]:
    """Return the columns, and the worst case unless a column equals it, such as the last row of a chain."""
    robust = group.robust
    more = robust is not None and robust.values not in [column.values for column in group.columns]
    return [*group.columns, *([robust] if robust is not None and more else [])]


def comparison_html(comparison: Comparison, figures: Path) -> str:
    """Return a comparison as the content of a page's section.

    Args:
        comparison: comparison to show.
        figures: folder for its figures, as PNG and SVG.

    Raises:
        RunError: a figure cannot be written.
    """
    parts = [f'<p class="doubt">{escape(note)}</p>\n' for note in comparison_notes(comparison)]
    for number, group in enumerate(comparison.groups):
        parts += map(sheet_html, _sheets(comparison, number, group))
        if group.measured:
            continue
        name = "-".join(word for word in (comparison.suite, str(number + 1) if number else "") if word)
        drawn = _draw(group, figures, f"-{name}" if name else "", title_of(comparison, number))
        parts.append(figures_html([read_picture(path) for path in drawn]))
    return "".join(parts)


def comparison_page(title: str, comparison: Comparison) -> str:
    """Return one self-contained HTML page with the tables and figures of a comparison.

    Raises:
        RunError: temporary files cannot be written.
    """
    with writing("figures"), TemporaryDirectory() as folder:
        content = comparison_html(comparison, Path(folder))
    return page(title, "", [Section("Comparison", content)])


def _draw(group: Group, folder: Path, name: str, title: str) -> Iterator[Path]:
    """Draw clean against robust accuracy, and robust accuracy against the passes of training."""
    if group.robust is None or len(group.entries) < 2:
        return
    label, names = f"{group.robust.name} (%)", [entry.name for entry in group.entries]
    robust = [_percent(value) for value in group.robust.values if value is not None]
    if any(group.pareto):
        clean = [_percent(value) for value in group.columns[0].values if value is not None]
        points = [
            Point(name, x, y, on, x_bar, y_bar)
            for name, (x, x_bar), (y, y_bar), on in zip(names, clean, robust, group.pareto, strict=True)
        ]
        path = folder / f"trade-off{name}.png"
        trade_off_figure(path, f"Clean and robust accuracy, {title}", points, "clean accuracy (%)", label)
        yield path
    points = [
        Point(name, cost.passes, y, on, y_bar=bar)
        for name, cost, (y, bar), on in zip(names, group.costs, robust, group.frugal, strict=True)
        if cost is not None
    ]
    if len(points) > 1:
        path = folder / f"equal-compute{name}.png"
        x_label = "forwards and backwards per training sample"
        trade_off_figure(path, f"Robust accuracy by training passes, {title}", points, x_label, label)
        yield path


def _percent(value: Value) -> tuple[float, tuple[float, float]]:
    """Return a value and the lengths of its error bar, in per cent."""
    below, above = max(0.0, value.mean - value.low), max(0.0, value.high - value.mean)
    return 100 * value.mean, (100 * below, 100 * above)
