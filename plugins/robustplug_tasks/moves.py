"""Which columns of a table adversaries move: how often, in which direction and by how many of their units."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Cost, Refused, RunError, bar_figure

from .encoding import Column, TableInfo

if TYPE_CHECKING:
    from robustplug.api import OpenedEvaluation

# Passes that a page may wait for, and columns that a figure shows.
_CHEAP, _SHOWN = 200_000, 20
# A change below this share of the range of a column is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Moved:
    """Say how adversarial rows move a column.

    Attributes:
        column: name of the column.
        unit: its unit; "" for none.
        rows: number of rows in which it changes.
        of: number of adversarial rows.
        median: median size of these changes, in units of the column; 1 for categories.
        up: share of these changes that increase it; NaN for categories.
        change: the most frequent change of a category, "clerk → driver"; "" for numbers.
    """

    column: str
    unit: str
    rows: int
    of: int
    median: float
    up: float
    change: str = ""

    @property
    def share(self) -> float:
        """Return the share of the adversarial rows in which it changes, in per cent."""
        return 100 * self.rows / self.of

    def sentence(self) -> str:
        """Return the typical change: "+0.42 % vol, up in 100 %"."""
        if self.change:
            return f"mostly {self.change}"
        sign = "+" if self.up > 0.5 else "−"
        return f"{sign}{self.median:.3g}{' ' if self.unit else ''}{self.unit}, up in {self.up:.0%}"


@dataclass(frozen=True)
class Moves:
    """Hold what one attack moves.

    Attributes:
        attack: its name.
        attempted: number of rows that were right, on which it ran.
        broken: number of these that it broke.
        columns: what it moved in those, the most frequent first.
        refused: why it could not be run; "" otherwise.
    """

    attack: str
    attempted: int
    broken: int
    columns: tuple[Moved, ...] = ()
    refused: str = ""


def moved_columns(
    columns: Sequence[Column], widths: Sequence[float], origin: Tensor, x: Tensor
) -> list[Moved]:
    """Return how rows differ from their origins, the most frequent change first.

    Args:
        columns: the columns of the table.
        widths: range of each input.
        origin, x: the rows (M, F), in the units of the columns.
    """
    found = []
    for column in columns:
        at = list(column.places)
        before, after = origin[:, at], x[:, at]
        if column.categories:
            pairs = zip(before.argmax(1).tolist(), after.argmax(1).tolist(), strict=True)
            changes = Counter((a, b) for a, b in pairs if a != b)
            rows = sum(changes.values())
            if rows:
                (a, b), _ = changes.most_common(1)[0]
                said = f"{column.categories[a]} → {column.categories[b]}"
                found.append(Moved(column.name, "", rows, len(x), 1.0, float("nan"), said))
            continue
        delta = (after - before)[:, 0]
        delta = delta[delta.abs() > _ROUNDING * widths[at[0]]]
        if len(delta):
            median = statistics.median(delta.abs().tolist())
            up = float((delta > 0).double().mean())
            found.append(Moved(column.name, column.unit, len(delta), len(x), median, up))
    return sorted(found, key=lambda each: (-each.rows, each.column))


def found_moves(opened: OpenedEvaluation) -> list[Moves]:
    """Run each attack of an evaluation on the rows that are right, and return what it moves.

    Raises:
        RunError: the task is no table.
    """
    info = opened.evaluation.task.info
    if not isinstance(info, TableInfo):
        raise RunError(
            "the task is no table whose columns have names: use the tasks table, regression and ordinal"
        )
    low, high = (torch.as_tensor(side, dtype=torch.float64).expand(_inputs(info)) for side in info.bounds)
    widths = (high - low).tolist()
    result = []
    with opened.running() as clean:
        for number, attack in enumerate(opened.attacks, 1):
            try:
                pairs = list(_broken(opened, attack, number))
            except Refused as why:
                result.append(Moves(attack.label, 0, 0, refused=str(why)))
                continue
            origin, x = (
                torch.cat([pair[at] for pair in pairs]) if pairs else torch.empty(0) for at in (0, 1)
            )
            columns = tuple(moved_columns(info.columns, widths, origin, x)) if len(x) else ()
            result.append(Moves(attack.label, clean.right, len(x), columns))
    return result


def _inputs(info: TableInfo) -> int:
    return info.shape[0] if info.shape else 0


def _broken(opened: OpenedEvaluation, attack: Any, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows that an attack breaks, and what it makes of them."""
    for step, view, vicinity in opened.steps(attack, number):
        step.evaluating = True
        x = attack.perturbation(step, view, vicinity).x
        with torch.no_grad():
            moved = view.replace(x=x)
            wrong = ~step.score(moved, step.output(moved))
            wrong &= vicinity.contains(x, view.origin, step.radii(view, vicinity))
        yield view.origin[wrong].cpu(), x[wrong].detach().cpu()


def cheap(opened: OpenedEvaluation) -> bool:
    """Return whether all attacks of an evaluation take seconds."""
    size = opened.evaluation.task.info.sizes[opened.split]
    rows = min(size, opened.samples or size)
    passes = sum(sum(each.perturbation.cost(Cost(0, 0))) for each in opened.attacks if each.perturbation)
    return passes * rows <= _CHEAP  # of an unknown cost, NaN is not


def draw(found: Sequence[Moves], folder: Path, name: str) -> list[Path]:
    """Draw how often each column moves, and how, for each attack that broke rows; return the files."""
    made = []
    for each in found:
        if not each.broken:
            continue
        shown = each.columns[:_SHOWN]
        label = re.sub(r"[^a-z0-9]+", "-", each.attack.lower()).strip("-")
        path = folder / f"moves-{label}.png"
        groups = [f"{moved.column}\n{moved.sentence()}" for moved in shown]
        values = [moved.share for moved in shown]
        series = {f"share of {each.broken} broken rows in which it moves": (values, [0.0] * len(values))}
        title = f"What {each.attack} moves in {name}"
        bar_figure(path, title, groups, series, "% of the rows that it breaks", (0, 100))
        made.append(path)
    return made


def lines(found: Sequence[Moves]) -> Iterator[str]:
    """Yield the lines of a table for reading: a section for each attack."""
    for each in found:
        if each.refused:
            yield f"{each.attack}: not run: {each.refused}"
            continue
        yield f"{each.attack}: breaks {each.broken} of {each.attempted} rows that were right"
        width = max((len(moved.column) for moved in each.columns), default=0)
        for moved in each.columns:
            yield f"  {moved.column:{width}}  in {moved.share:3.0f} % of them  {moved.sentence()}"


def as_json(found: Sequence[Moves]) -> list[Mapping[str, Any]]:
    """Return what attacks move as plain values; what is no number is null."""
    return [
        {
            **{key: value for key, value in asdict(each).items() if key != "columns"},
            "columns": [
                {key: None if value != value else value for key, value in asdict(moved).items()}
                for moved in each.columns
            ],
        }
        for each in found
    ]
