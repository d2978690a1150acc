"""What a task measures besides accuracy, as columns and tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from ...core.measures import Measure, Quantity
from ...core.types import AttackResult, Result
from .sheets import Cell, Sheet

SYMMETRIC = 0.005
"""An interval counts as symmetric if the parts above and below the mean differ by less than this."""


def headlines(result: Result) -> list[Quantity]:
    """Return the measures that tables show in the place of the accuracy; none if that is what they show."""
    said = [Quantity(**each) for each in result.meta.get("quantities", ())]
    return [quantity for quantity in said if quantity.headline]


def measured(row: AttackResult, name: str) -> str:
    """Return a measure of a row with its interval as text; "–" if no sample of the row has it."""
    return (measure_text(row.measures[name]) if name in row.measures else "") or "–"


def measured_beside(lines: Mapping[str, Sequence[Result]]) -> list[Quantity]:
    """Return what at least two runs measure in rows of their own, such as certified radii."""
    known = [
        dict.fromkeys(
            name for each in results for row in each.attacks if row.bound != "upper" for name in row.measures
        )
        for results in lines.values()
    ]
    counts = Counter(name for names in known for name in names)
    # A larger certified radius is better; of other measures, nothing is known.
    return [
        Quantity(name, "higher" if name.startswith("certified") else "")
        for name, count in counts.items()
        if count > 1
    ]


def compared_measures(
    title: str, lines: Mapping[str, Sequence[Result]], quantities: Sequence[Quantity]
) -> Sheet:
    """Lay out measures of several runs: a line for each attack and run, the best of each attack marked.

    Args:
        title: title of the table.
        lines: results of each line, one for each seed, by its name.
        quantities: the measures.
    """
    found: dict[str, dict[str, list[AttackResult]]] = {}
    for name, results in lines.items():
        for row in (row for result in results for row in result.attacks if not row.skipped):
            if any(q.name in row.measures and row.measures[q.name].count for q in quantities):
                found.setdefault(row.name, {}).setdefault(name, []).append(row)
    cells: list[tuple[Cell, ...]] = []
    for attack, runs in found.items():
        means = {name: [_mean(rows, q.name) for q in quantities] for name, rows in runs.items()}
        tops = [_top([each[at] for each in means.values()], q.better) for at, q in enumerate(quantities)]
        for name, rows in runs.items():
            numbers = [
                Cell(_over_seeds(rows, q.name), mean == top)
                for q, mean, top in zip(quantities, means[name], tops, strict=True)
            ]
            cells.append((Cell(attack), Cell(name), *numbers))
    note = (
        "Measures with their 95 % interval over the samples; of several seeds, mean ± standard deviation. "
        "Bold or *: the best for the model; no difference is tested."
    )
    return Sheet(title, ("attack", "run", *(q.name for q in quantities)), tuple(cells), (note,), labels=2)


def _mean(rows: Sequence[AttackResult], name: str) -> float:
    known = [row.measures[name].mean for row in rows if name in row.measures and row.measures[name].count]
    return statistics.fmean(known) if known else math.nan


def _top(means: Sequence[float], better: str) -> float | None:
    known = [mean for mean in means if not math.isnan(mean)]
    if len(known) < 2 or not better:
        return None
    return max(known) if better == "higher" else min(known)


def _over_seeds(rows: Sequence[AttackResult], name: str) -> str:
    if len(rows) == 1:
        return measured(rows[0], name).replace("\n", " ")
    known = [row.measures[name].mean for row in rows if name in row.measures and row.measures[name].count]
    if len(known) < 2:
        return _rounded(known[0]) if known else "–"
    return f"{_rounded(statistics.fmean(known))} ± {_rounded(statistics.stdev(known))}"


def measure_table(result: Result) -> Table | None:
    """Lay out what the task measures besides the headlines: means over the samples of each row."""
    shown = {quantity.name for quantity in headlines(result)}
    found = [
        (row, {name: measure for name, measure in row.measures.items() if name not in shown})
        for row in result.attacks
    ]
    rows = [(row, rest) for row, rest in found if any(measure.count for measure in rest.values())]
    if not rows:
        return None
    names = list(dict.fromkeys(name for _, rest in rows for name in rest))
    note = (
        "Means over the samples that the row was run on. Below each mean: its 95 % confidence interval, as "
        "± half its width if it is symmetric."
    )
    table = Table(title="measured", caption=note, title_justify="left", caption_justify="left")
    # Without lines between columns, half a dozen of them fit 80 characters.
    table.box, table.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    table.add_column("attack", overflow="fold")
    for name in ("samples", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for row, rest in rows:
        cells = [measure_text(rest[name]) if name in rest else "" for name in names]
        table.add_row(row.name, str(row.attempted), *cells)
    return table


def measure_text(measure: Measure) -> str:
    """Return "4.95" and on a second line "±0.16" or "4.61–5.02"; "" for no samples."""
    if not measure.count:
        return ""
    mean = _rounded(measure.mean)
    if math.isnan(measure.high) or math.isnan(measure.low):
        return mean
    above, below = measure.high - measure.mean, measure.mean - measure.low
    if abs(above - below) >= SYMMETRIC:
        return f"{mean}\n{_rounded(measure.low)}–{_rounded(measure.high)}"
    return f"{mean}\n±" + (_rounded(above) if above >= SYMMETRIC else f"<{2 * SYMMETRIC:.2f}")


def _rounded(number: float) -> str:
    # Adding 0.0 removes the sign of -0.0.
    return f"{round(number, 2) + 0.0:.2f}"
