"""What a task measures besides accuracy, as columns and tables."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table

from ...core.measures import Measure, Quantity
from ...core.types import AttackResult, Result

SYMMETRIC = 0.005
"""An interval counts as symmetric if the parts above and below the mean differ by less than this."""


def headlines(result: Result) -> list[Quantity]:
    """Return the measures that tables show in the place of the accuracy; none if that is what they show."""
    said = [Quantity(**each) for each in result.meta.get("quantities", ())]
    return [quantity for quantity in said if quantity.headline]


def measured(row: AttackResult, name: str) -> str:
    """Return a measure of a row with its interval as text; "–" if no sample of the row has it."""
    return (measure_text(row.measures[name]) if name in row.measures else "") or "–"


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
