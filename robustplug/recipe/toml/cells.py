"""Cells of a study that start from the runs of other cells: `from = "cell:method=TRADES"`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ...plugin.registry import did_you_mean
from ..errors import Finding, KeyPath
from ..options import Recipe
from .started import starts_of

PREFIX = "cell:"


class Labelled(Protocol):
    """A cell of a study: its name, one label of each axis, and its recipe."""

    @property
    def name(self) -> str:
        """Return the name for display."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return one label of each axis."""

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the first seed."""


def is_cell(start: str) -> bool:
    """Return whether a `from` refers to a cell of the study."""
    return start.startswith(PREFIX)


def cell_of(start: str, axes: Sequence[str], labels: Sequence[str], names: Mapping[str, int]) -> int | None:
    """Return the number of the cell that a `from` refers to; None for none.

    Args:
        start: "cell:" and either the whole name of a cell, or "axis=label" for the cell that differs from
            the one that refers to it only in that axis.
        axes: names of the axes.
        labels: the labels of the cell that refers to it.
        names: numbers of all cells by name.
    """
    text = start.removeprefix(PREFIX)
    if text in names:
        return names[text]
    axis, _, label = text.partition("=")
    if axis not in axes:
        return None
    pairs = zip(axes, labels, strict=True)
    return names.get(", ".join(f"{name}={label if name == axis else own}" for name, own in pairs))


def cells_needed(
    axes: Sequence[str], cells: Sequence[Labelled]
) -> tuple[list[dict[str, int]], list[tuple[int, Finding]]]:
    """Return for each cell the numbers of those that it starts from, by `from` or as a run folder.

    Args:
        axes: names of the axes.
        cells: the cells, with resolved recipes.

    Returns:
        What each cell needs, and the findings, each with the number of the cell that has it: a cell that does
        not exist, or that would need its own run.
    """
    names = {cell.name: number for number, cell in enumerate(cells)}
    needed: list[dict[str, int]] = [{} for _ in cells]
    places: list[dict[str, KeyPath]] = [{} for _ in cells]
    findings: list[tuple[int, Finding]] = []
    for number, cell in enumerate(cells):
        for place, start in starts_of(cell.recipe):
            if not is_cell(start):
                continue
            found = cell_of(start, axes, cell.labels, names)
            if found is None:
                text = start.removeprefix(PREFIX)
                close = did_you_mean(text, names)
                hint = f'did you mean "{PREFIX}{close}"?' if close else f"known: {', '.join(names)}"
                findings.append((number, Finding(place, f'"{text}" is no cell of this study', hint)))
            else:
                needed[number][start] = found
                places[number][start] = place
    for number, starts in enumerate(needed):
        for start, other in starts.items():
            if number in _all_needed(other, needed):
                what = f'"{start}" starts in turn from this cell, so that neither can be the first'
                findings.append((number, Finding(places[number][start], what)))
    return needed, findings


def _all_needed(number: int, needed: Sequence[Mapping[str, int]]) -> set[int]:
    """Return the cells that must come before another, and itself."""
    found, todo = {number}, [number]
    while todo:
        fresh = {*needed[todo.pop()].values()} - found
        found |= fresh
        todo += fresh
    return found


def in_order(needed: Sequence[Mapping[str, int]]) -> Iterator[int]:
    """Yield the numbers of the cells, each after those that it needs, and otherwise in their order."""
    done: set[int] = set()
    for number in range(len(needed)):
        for each in sorted(_all_needed(number, needed) - done, key=lambda at: len(_all_needed(at, needed))):
            done.add(each)
            yield each
