"""Figures that show models or cells side by side, and the loss around samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .canvas import logarithmic, looks, new_figure, number, plain, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With more points, only those on the front are labelled.
_NAMED = 15


@dataclass(frozen=True)
class Point:
    """Hold a named point.

    Attributes:
        name: name beside the point.
        x, y: coordinates.
        marked: whether it is on the front; marked points are filled and joined by a line.
        x_bar, y_bar: lengths of its error bars to the lower and to the upper side.
    """

    name: str
    x: float
    y: float
    marked: bool
    x_bar: tuple[float, float] = (0.0, 0.0)
    y_bar: tuple[float, float] = (0.0, 0.0)


def trade_off_figure(path: Path, title: str, points: Sequence[Point], x_label: str, y_label: str) -> None:
    """Draw named points in a plane, and the front through the marked ones.

    IAAT Fig. 3, with the front instead of a line along one hyperparameter.

    Args:
        path: path of the PNG; an SVG is written beside it.
        title: title of the figure.
        points: at least one point.
        x_label, y_label: labels of the axes, with units.

    Raises:
        RunError: a file cannot be written.
    """
    figure = new_figure(5.8, 4.4)
    ax = figure.subplots()
    best = looks(1)[0].colour
    for point in points:
        colour = best if point.marked else "#555555"
        y_bar, x_bar = ([[low], [high]] if low or high else None for low, high in (point.y_bar, point.x_bar))
        ax.errorbar(
            [point.x],
            [point.y],
            y_bar,
            x_bar,
            fmt="o" if point.marked else "s",
            color=colour,
            markerfacecolor=colour if point.marked else "white",
            markersize=6,
            elinewidth=0.7,
        )
    marked = [point for point in points if point.marked]
    joined = sorted((point.x, point.y) for point in marked)
    ax.plot([x for x, _ in joined], [y for _, y in joined], color=best, linewidth=1, alpha=0.6, zorder=0)
    if logarithmic([point.x for point in points]):
        ax.set_xscale("log")
    ax.margins(x=0.18, y=0.12)
    _names(ax, points if len(points) <= _NAMED else marked)
    style(ax, "", x_label, y_label)
    told = ", ".join(
        f"{point.name} at {number(point.x)} and {number(point.y)}{' (on the front)' if point.marked else ''}"
        for point in points
    )
    save(figure, path, title, f"{title}: {y_label} against {x_label}. {told}.")


def _names(ax: Axes, points: Sequence[Point]) -> None:
    """Write names beside points, on the side with more room, without overlap."""
    to_figure = ax.transData + ax.transAxes.inverted()
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: -each.y):
        x, height = to_figure.transform((point.x, point.y))
        place = height
        for other_x, other in placed:
            # A line of text has about 0.045 of the height of the axes.
            if abs(other_x - x) < 0.35 and other - place < 0.045:
                place = other - 0.045
        placed.append((x, place))
        left = x > 0.5
        ax.annotate(
            plain(point.name),
            (point.x, point.y),
            xytext=(-7 if left else 7, 3 + (place - height) * 240),
            textcoords="offset points",
            fontsize="small",
            ha="right" if left else "left",
        )


def radar_figure(
    path: Path, title: str, axes: Sequence[str], shapes: Mapping[str, Sequence[float]], note: str
) -> None:
    """Draw a radar chart for each name, small and side by side: SPROUT Fig. 1.

    Args:
        path: path of the PNG; an SVG is written beside it.
        title: title of the figure.
        axes: labels of at least three axes.
        shapes: for each name a value in [0, 1] for each axis; NaN, drawn as 0, for none.
        note: meaning of the values, for the description.

    Raises:
        RunError: a file cannot be written.
    """
    columns = min(3, len(shapes))
    count = math.ceil(len(shapes) / columns)
    figure = new_figure(3.1 * columns, 3.0 * count + 0.4)
    grid = figure.subplots(count, columns, squeeze=False, subplot_kw={"projection": "polar"})
    angles = [2 * math.pi * at / len(axes) for at in range(len(axes))]
    look = looks(1)[0]
    told = []
    for cell, (name, values) in zip(grid.flat, shapes.items(), strict=False):
        ax: Any = cell
        filled = [0.0 if math.isnan(value) else value for value in values]
        score = sum(filled) / len(filled)
        ax.plot([*angles, angles[0]], [*filled, filled[0]], color=look.colour, linewidth=1.6)
        ax.fill(angles, filled, color=look.colour, alpha=0.25)
        ax.set_theta_zero_location("N")
        ax.set_theta_direction(-1)
        ax.set_ylim(0, 1)
        ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize="x-small", color="#555555")
        ax.set_xticks(angles, [plain(label) for label in axes], fontsize="small")
        # A centred label at the side would overlap the circle.
        for angle, label in zip(angles, ax.get_xticklabels(), strict=True):
            side = math.sin(angle)
            label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        ax.set_title(f"{plain(name)}\nmean {score:.2f}", fontsize="medium")
        pairs = ", ".join(
            f"{' '.join(axis.split())} {'missing' if math.isnan(value) else f'{value:.2f}'}"
            for axis, value in zip(axes, values, strict=True)
        )
        told.append(f"{name}: {pairs}; mean {score:.2f}.")
    for cell in grid.flat[len(shapes) :]:
        cell.set_axis_off()
    save(figure, path, title, f"{title}. {note} {' '.join(told)}")


def surface_figure(
    path: Path,
    title: str,
    along: Sequence[float],
    heights: Sequence[Sequence[float]],
    labels: tuple[str, str, str],
    radius: float,
) -> None:
    """Draw a function of two displacements as a contour map and as a surface: SPROUT Fig. 4.

    Args:
        path: path of the PNG; an SVG is written beside it.
        title: title of the figure.
        along: sizes of both displacements, in ascending order.
        heights: a row for each size of the second displacement, a column for each size of the first.
        labels: labels of the first displacement, of the second, and of the heights.
        radius: half the side length of a square that is drawn on the map.

    Raises:
        RunError: a file cannot be written.
    """
    from matplotlib import ticker

    figure = new_figure(9.2, 4.2)
    flat = figure.add_subplot(1, 2, 1)
    solid: Any = figure.add_subplot(1, 2, 2, projection="3d")
    filled = flat.contourf(along, along, heights, levels=14, cmap="viridis")
    lines = flat.contour(along, along, heights, levels=7, colors="white", linewidths=0.6)
    flat.clabel(lines, fontsize="x-small")
    box = [-radius, radius, radius, -radius, -radius], [-radius, -radius, radius, radius, -radius]
    flat.plot(*box, color="black", linewidth=1.2, linestyle="--", label=f"ε = {number(radius)}")
    flat.plot([0], [0], marker="x", color="black", linestyle="", label="the samples")
    flat.legend(fontsize="small", loc="upper left")
    flat.set(xlabel=plain(labels[0]), ylabel=plain(labels[1]), aspect="equal")
    for axis in (flat.xaxis, flat.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(4))
    figure.colorbar(filled, ax=flat, label=plain(labels[2]), shrink=0.9)
    columns = [list(along) for _ in along]
    rows = [[value] * len(along) for value in along]
    solid.plot_surface(
        *(_array(each) for each in (columns, rows, heights)), cmap="viridis", edgecolor="#00000030", lw=0.2
    )
    # Slightly smaller, so that the label of the heights is not cut off.
    solid.set_box_aspect(None, zoom=0.72)
    solid.set_xlabel(plain(labels[0].partition(" (")[0]), fontsize="small", labelpad=8)
    solid.set_ylabel(plain(labels[1].partition(" (")[0]), fontsize="small", labelpad=8)
    solid.set_zlabel(plain(labels[2]), fontsize="small", labelpad=6)
    for axis in (solid.xaxis, solid.yaxis, solid.zaxis):
        axis.set_major_locator(ticker.MaxNLocator(4))
        axis.set_tick_params(labelsize="x-small")
    values = [value for row in heights for value in row]
    middle = heights[len(along) // 2]
    save(
        figure,
        path,
        title,
        f"{title}: {labels[2]} from {number(min(values))} to {number(max(values))} as {labels[0]} and "
        f"{labels[1]} range from {number(along[0])} to {number(along[-1])}. Along the first alone, it is "
        f"{number(middle[0])} at {number(along[0])}, {number(middle[len(along) // 2])} at 0, "
        f"{number(middle[-1])} at {number(along[-1])}.",
    )


def _array(rows: Sequence[Sequence[float]]) -> Any:
    import numpy as np

    return np.asarray(rows)
