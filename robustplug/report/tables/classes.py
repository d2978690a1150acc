"""An evaluation by class: accuracies, and how far the confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ...core.reporting import headlines
from ...core.types import AttackResult, Result

# Number of classes that a line names.
_NAMED = 3


def class_names(result: Result) -> list[str]:
    """Return the names of the classes, or else their numbers; empty if the result has none."""
    count, names = len(class_samples(result)), (result.meta.get("classes") or {}).get("names", [])
    return [str(name) for name in names] if len(names) == count else [str(n) for n in range(count)]


def class_samples(result: Result) -> list[int]:
    """Return the number of samples of each class; empty if there are none, or accuracy does not count."""
    if headlines(result):
        return []
    return list((result.meta.get("classes") or {}).get("samples", []))


def shown_rows(result: Result) -> list[AttackResult]:
    """Return the rows that are shown by class: the clean one and the last one of each chain."""
    known = [row for row in result.attacks if row.by_class]
    last = {row.chain: row for row in known if row.chain}
    return [row for row in known if row is result.attacks[0] or last.get(row.chain) is row]


def class_shares(row: AttackResult, samples: Sequence[int]) -> list[float]:
    """Return the accuracy of each class after a row; NaN for classes without samples."""
    return [right / count if count else math.nan for right, count in zip(row.by_class, samples, strict=True)]


def class_table(result: Result) -> Table:
    """Lay out the accuracy of each class, clean and after the last row of each chain."""
    samples, rows = class_samples(result), shown_rows(result)
    table = Table(title="accuracy by class", title_justify="left", caption_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("samples", justify="right")
    for row in rows:
        table.add_column(row.name, justify="right")
    shares = [class_shares(row, samples) for row in rows]
    for number, (name, count) in enumerate(zip(class_names(result), samples, strict=True)):
        # A name from data is no markup.
        table.add_row(Text(name), str(count), *(f"{share[number]:.1%}" if count else "" for share in shares))
    if len(rows) > 1:
        table.caption = "Under attack: all rows of the chain together, up to the named one."
    return table


def class_lines(result: Result) -> list[str]:
    """Return lines on the classes with the lowest accuracies, and on the calibration."""
    samples, names = class_samples(result), class_names(result)
    lines = []
    for row in shown_rows(result) if len(samples) > 1 else ():
        shares = class_shares(row, samples)
        known = sorted((share, number) for number, share in enumerate(shares) if not math.isnan(share))
        count = min(_NAMED, len(known) // 2)
        if count:
            lowest = ", ".join(f"{names[number]} ({share:.1%})" for share, number in known[:count])
            share, number = known[-1]
            lines.append(f"By class, {row.name}: lowest {lowest}; highest {names[number]} ({share:.1%}).")
    return [*lines, *calibration_lines(result)]


def calibration_lines(result: Result) -> list[str]:
    """Return a line on the calibration of the clean predictions, if it is known."""
    said = result.meta.get("calibration")
    if not said:
        return []
    return [
        f"Expected calibration error of the {said['row']} row: {said['error']:.1%} ({said['bins']} bins; "
        f"mean confidence {said['confidence']:.1%}, accuracy {result.attacks[0].accuracy:.1%})."
    ]
