"""What a task measures besides accuracy, as columns and tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from ...core.measures import Measure, Quantity
from ...core.reporting import headlines, stated
from ...core.types import AttackResult, Result
from .sheets import Cell, Sheet

SYMMETRIC = 0.005
"""An interval counts as symmetric if the parts above and below the mean differ by less than this."""


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
    title: str, lines: Mapping[str, Sequence[Result]], quantities: Sequence[Quantity] = ()
) -> Sheet:
    """Lay out measures of several runs: a line for each attack and run, the best of each attack marked.

    Args:
        title: title of the table.
        lines: results of each line, one for each seed, by its name.
        quantities: the measures; by default the headlines.
    """
    cells: list[tuple[Cell, ...]] = []
    found = list(compared_rows(lines, quantities))
    for each in found:
        for name, rows in each.rows.items():
            numbers = [
                Cell(_over_seeds(rows, q.name), each.means[name][q.name] == each.best[q.name])
                for q in each.quantities
            ]
            cells.append((Cell(each.name), Cell(name), *numbers))
    note = (
        "Measures with their 95 % interval over the samples; of several seeds, mean ± standard deviation. "
        "Bold or *: the best for the model; no difference is tested."
    )
    names = [quantity.name for quantity in found[0].quantities] if found else []
    return Sheet(title, ("attack", "run", *names), tuple(cells), (note,), labels=2)


@dataclass(frozen=True)
class ComparedRow:
    """Hold some measures of an attack for several runs.

    Attributes:
        name: name of the row.
        quantities: the measures.
        rows: the row of each seed, by the name of the run.
        means: means over the seeds, by run and measure; NaN for none.
        best: the best mean of each measure; NaN for none.
    """

    name: str
    quantities: Sequence[Quantity]
    rows: Mapping[str, Sequence[AttackResult]]
    means: Mapping[str, Mapping[str, float]]
    best: Mapping[str, float]


def compared_rows(
    lines: Mapping[str, Sequence[Result]], quantities: Sequence[Quantity] = ()
) -> Iterator[ComparedRow]:
    """Yield the rows of several runs that state one of some measures.

    Args:
        lines: results of each run, one for each seed, by its name.
        quantities: the measures; by default the headlines.
    """
    every = (headlines(result) for each in lines.values() for result in each)
    quantities = quantities or next(filter(None, every), [])
    found: dict[str, dict[str, list[AttackResult]]] = {}
    for name, results in lines.items():
        for row in (row for result in results for row in result.attacks if not row.skipped):
            if stated(row, quantities):
                found.setdefault(row.name, {}).setdefault(name, []).append(row)
    for attack, runs in found.items():
        means = {name: {q.name: _mean(rows, q.name) for q in quantities} for name, rows in runs.items()}
        best = {q.name: _top([each[q.name] for each in means.values()], q.better) for q in quantities}
        yield ComparedRow(attack, quantities, runs, means, best)


def _mean(rows: Sequence[AttackResult], name: str) -> float:
    known = [row.measures[name].mean for row in rows if name in row.measures and row.measures[name].count]
    return statistics.fmean(known) if known else math.nan


def _top(means: Sequence[float], better: str) -> float:
    known = [mean for mean in means if not math.isnan(mean)]
    if len(known) < 2 or not better:
        return math.nan
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
