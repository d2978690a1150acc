"""A figure of named points, of which some form a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

# Of more points, only the marked ones have their names beside them.
_NAMED = 15
# From this ratio of the largest to the smallest value on, the x axis is logarithmic.
_LOGARITHMIC = 50
# Marked points differ in shape, too: they are told apart in print and by all eyes.
_MARKED, _OTHER = "#0b3c8c", "#777777"


@dataclass(frozen=True)
class Point:
    """Hold a point.

    Attributes:
        name: beside it.
        x, y: where it is.
        x_bar, y_bar: lengths of its error bars to the lower and to the higher side.
        marked: it is filled, and joined with the others that are marked.
    """

    name: str
    x: float
    y: float
    x_bar: tuple[float, float]
    y_bar: tuple[float, float]
    marked: bool


def point_picture(title: str, points: Sequence[Point], x_label: str, y_label: str) -> bytes:
    """Draw points with error bars, and a line along those that are marked; return the PNG.

    Equal numbers give equal files.

    Args:
        title: of the figure.
        points: at least one.
        x_label, y_label: of the axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for point in points:
        colour = _MARKED if point.marked else _OTHER
        ax.errorbar(
            [point.x],
            [point.y],
            xerr=[[point.x_bar[0]], [point.x_bar[1]]],
            yerr=[[point.y_bar[0]], [point.y_bar[1]]],
            fmt="o" if point.marked else "s",
            color=colour,
            markerfacecolor=colour if point.marked else "white",
            elinewidth=0.6,
        )
        if point.marked or len(points) <= _NAMED:
            ax.annotate(
                _plain(point.name),
                (point.x, point.y),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize="small",
                color=colour,
            )
    joined = sorted((point.x, point.y) for point in points if point.marked)
    ax.plot([x for x, _ in joined], [y for _, y in joined], color=_MARKED, linewidth=1, alpha=0.6, zorder=0)
    values = [point.x for point in points]
    if min(values) > 0 and max(values) / min(values) >= _LOGARITHMIC:
        ax.set_xscale("log")
    ax.margins(x=0.15, y=0.1)
    ax.set(title=_plain(title), xlabel=_plain(x_label), ylabel=_plain(y_label))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    picture = BytesIO()
    # Without the version of matplotlib, which is all that would differ between two machines' files.
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _plain(text: str) -> str:
    """Return a text in which nothing is read as a formula."""
    return text.replace("$", r"\$")
