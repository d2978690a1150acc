"""What `robustplug describe` finds in data, as tables and lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ...subjects.data.arrays import shown
from ...subjects.data.describe import class_name

if TYPE_CHECKING:
    from ...subjects.data.describe import Description, Faults

# Classes and faults beyond these are counted.
_CLASSES = 30
_LISTED = 20


def data_tables(name: str, described: Description) -> list[Table | Text]:
    """Return the tables of a task's data: its splits, its classes, and notes."""
    info = described.info
    shape = "inputs of no fixed shape" if info.shape is None else f"inputs {tuple(info.shape)}"
    classes = "no classes" if info.classes is None else f"{info.classes} classes"
    bounds = "" if info.shape is None else f" · bounds {shown(info.bounds)}"
    parts: list[Table | Text] = [Text(f"{name} · {shape} · {classes}{bounds}")]
    table = Table()
    table.add_column("split")
    for head in ("samples", "range", "measured on", "samples in a class"):
        table.add_column(head, justify="right")
    for split, facts in described.splits.items():
        limits = "" if facts.low is None else f"{facts.low:.4g} to {facts.high:.4g}"
        least, most = min(facts.counts.values(), default=0), max(facts.counts.values(), default=0)
        spread = "" if not facts.counts else f"{least:,}" if least == most else f"{least:,} to {most:,}"
        table.add_row(split, f"{facts.size:,}", limits, f"{facts.measured:,}", spread)
    parts.append(table)
    if any(facts.counts for facts in described.splits.values()):
        parts.append(_class_table(described))
    parts += [Text(f"note: {note}") for note in described.notes]
    return parts


def _class_table(described: Description) -> Table:
    info, splits = described.info, described.splits
    labels = sorted(
        {label for facts in splits.values() for label in facts.counts} | set(range(info.classes or 0))
    )
    more = len(labels) - _CLASSES
    counted = [
        f"the first {facts.counted:,} of {split}"
        for split, facts in splits.items()
        if facts.counted < facts.size
    ]
    caption = [f"and {more:,} more classes"] if more > 0 else []
    caption += [f"counted over {', '.join(counted)}"] if counted else []
    table = Table(caption="; ".join(caption) or None)
    table.add_column("class", overflow="fold")
    for split in splits:
        table.add_column(split, justify="right")
    for label in labels[:_CLASSES]:
        cells = (f"{facts.counts.get(label, 0):,}" for facts in splits.values())
        table.add_row(Text(class_name(info, label)), *cells)
    return table


def fault_lines(faults: Faults) -> Iterator[str]:
    """Yield what is wrong with data, a line each."""
    yield from _listed("broken samples", faults.broken)
    twice = "samples that stand in two splits"
    if faults.twins is None:
        yield f"{twice}: not looked for, since inputs have no fixed shape"
    else:
        yield from _listed(twice, [f"{first} = {second}" for first, second in faults.twins])
    yield from _listed("classes with one sample", faults.lonely)


def _listed(what: str, found: Sequence[str]) -> Iterator[str]:
    yield f"{what}: {len(found)}" if found else f"{what}: none"
    yield from (f"  {each}" for each in found[:_LISTED])
    if len(found) > _LISTED:
        yield f"  … and {len(found) - _LISTED} more"
