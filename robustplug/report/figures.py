"""Figures of plain numbers, written as PNG; equal numbers give equal files.

Figures are drawn without pyplot, so that neither a display nor global state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.folder import write_atomic, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
# From this ratio of the largest to the smallest value on, an axis of positive values is logarithmic.
_LOGARITHMIC = 50
# Longer lines are drawn without a mark at each value.
_MARKED = 40
# In inches: beyond it a picture is too large to be opened everywhere.
_TALLEST = 200.0


@dataclass(frozen=True)
class Line:
    """Hold one line of a panel.

    Attributes:
        label: for the legend.
        y: a value for each x; NaN where there is none.
        error: half the length of each error bar; NaN where there is none.
    """

    label: str
    y: Sequence[float]
    error: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Hold the lines of one panel, and its title."""

    title: str
    lines: Sequence[Line]


def line_figure(
    path: Path,
    title: str,
    x: Sequence[float],
    panels: Sequence[Panel],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    legend: str = "",
) -> None:
    """Draw panels of lines over the same x.

    Args:
        path: of the PNG; its folder is made.
        title: of the figure.
        x: values, in any order.
        panels: at least one, each with at least one line.
        x_label, y_label: of the axes.
        y_range: of all panels; None for what fits.
        legend: title of the legends.

    Raises:
        RunError: the file cannot be written.
    """
    from matplotlib import ticker

    columns = min(len(panels), 3)
    count = math.ceil(len(panels) / columns)
    figure = _figure(4.2 * columns + 1.2, 3.6 * count + 0.4)
    axes = figure.subplots(count, columns, squeeze=False)
    order = sorted(range(len(x)), key=lambda at: x[at])
    colours = _colours(max(len(panel.lines) for panel in panels))
    for at, ax in enumerate(axes.flat):
        if at >= len(panels):
            ax.set_axis_off()
            continue
        for line, colour in zip(panels[at].lines, colours, strict=False):
            error = [line.error[i] for i in order] if line.error else None
            ax.errorbar(
                [x[i] for i in order],
                [line.y[i] for i in order],
                yerror_of(error),
                color=colour,
                marker="o" if len(x) <= _MARKED else "",
                markersize=4,
                capsize=3,
                label=_label(line.label),
            )
        if min(x) > 0 and max(x) / min(x) >= _LOGARITHMIC:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(ticker.NullLocator())
        if len(set(x)) <= 8:
            ax.set_xticks(sorted(set(x)), [f"{value:.4g}" for value in sorted(set(x))])
        if y_range is not None:
            ax.set_ylim(*y_range)
        _style(ax, panels[at].title, x_label, y_label)
        ax.legend(title=_text(legend) or None, fontsize="small", title_fontsize="small")
    _save(figure, path, title)


def yerror_of(error: Sequence[float] | None) -> Sequence[float] | None:
    """Return error bars, or None when there is none at all."""
    return None if error is None or all(math.isnan(value) for value in error) else error


def bar_figure(
    path: Path,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    x_range: tuple[float, float] | None = None,
) -> None:
    """Draw groups of horizontal bars, the first group on top, one colour a series.

    Args:
        path: of the PNG; its folder is made.
        title: of the figure.
        groups: labels.
        series: for each name, a value and half an error bar for each group; NaN where there is none.
        x_label: of the values.
        x_range: of the values; None for what fits.

    Raises:
        RunError: the file cannot be written.
    """
    height = 0.8 / max(1, len(series))
    figure = _figure(8.0, min(_TALLEST, 1.6 + len(groups) * max(0.4, 0.22 * len(series))))
    ax = figure.subplots()
    colours = _colours(len(series))
    for number, (name, (values, errors)) in enumerate(series.items()):
        offset = (number - (len(series) - 1) / 2) * height
        places = [at + offset for at in range(len(groups))]
        # NaN has no length: the bar is not there, and so is said nothing of.
        ax.barh(places, values, height, color=colours[number], label=_label(name))
        ax.errorbar(values, places, xerr=yerror_of(errors), fmt="none", ecolor="black", capsize=2, lw=1)
    ax.set_yticks(range(len(groups)), [_text(group) for group in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    if x_range is not None:
        ax.set_xlim(*x_range)
    _style(ax, "", x_label, "")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    _save(figure, path, title)


def matrix_figure(
    path: Path,
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    values: Sequence[Sequence[float]],
    format: str = "{:.2f}",
) -> None:
    """Draw a heat map with the numbers written in its cells.

    Args:
        path: of the PNG; its folder is made.
        title: of the figure.
        row_labels, column_labels: of the cells.
        values: a row for each row label; NaN for a cell without a value, which stays empty.
        format: of the numbers, as for `str.format`.

    Raises:
        ValueError: the labels are not as many as rows and columns.
        RunError: the file cannot be written.
    """
    if len(values) != len(row_labels) or any(len(row) != len(column_labels) for row in values):
        raise ValueError(
            f"a matrix with {len(row_labels)} row labels and {len(column_labels)} column labels "
            "needs as many rows and columns"
        )
    texts = [["" if math.isnan(value) else format.format(value) for value in row] for row in values]
    longest = max((len(text) for row in texts for text in row), default=1)
    margin = 0.09 * max(map(len, row_labels), default=1)
    width = margin + 1.8 + len(column_labels) * max(0.6, 0.1 * longest + 0.2)
    # Column labels are slanted, so they take about 0.7 of their length.
    below = 0.065 * max(map(len, column_labels), default=1)
    figure = _figure(min(_TALLEST, width), min(_TALLEST, 1.2 + below + 0.45 * len(row_labels)))
    ax = figure.subplots()
    image = ax.imshow(values, cmap="viridis", aspect="auto")
    known = [value for row in values for value in row if not math.isnan(value)]
    # White letters on the dark half of the colours, black ones on the bright half.
    bright = min(known, default=0.0) + 0.6 * (max(known, default=0.0) - min(known, default=0.0))
    ax.set_xticks(range(len(column_labels)), [_text(label) for label in column_labels])
    ax.tick_params(axis="x", rotation=45)
    for label in ax.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")
    ax.set_yticks(range(len(row_labels)), [_text(label) for label in row_labels])
    for at, row in enumerate(values):
        for column, value in enumerate(row):
            ax.text(
                column,
                at,
                _text(texts[at][column]),
                ha="center",
                va="center",
                color="white" if value < bright else "black",
                fontsize="small",
            )
    figure.colorbar(image, ax=ax)
    _save(figure, path, title)


def histogram_figure(
    path: Path, title: str, groups: Mapping[str, Sequence[float]], label: str, bins: int = 40
) -> None:
    """Draw a histogram for each group below the other, over the same bins.

    Args:
        path: of the PNG; its folder is made.
        title: of the figure.
        groups: values by the title of their panel; at least one.
        label: of the values.
        bins: number of bins.

    Raises:
        RunError: the file cannot be written.
    """
    figure = _figure(6.0, 1.1 + 1.5 * len(groups))
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)
    least = min(min(values) for values in groups.values())
    most = max(max(values) for values in groups.values())
    for ax, (name, values) in zip(axes.flat, groups.items(), strict=True):
        ax.hist(values, bins=bins, range=(least, most if most > least else least + 1))
        _style(ax, name, "", "samples")
    axes.flat[-1].set_xlabel(_text(label))
    _save(figure, path, title)


def image_figure(path: Path, title: str, rows: Mapping[str, Sequence[tuple[str, Any]]]) -> None:
    """Draw rows of small images.

    Args:
        path: of the PNG; its folder is made.
        title: of the figure.
        rows: (caption, image (C, H, W) with values in [0, 1]) by the title of their row; equally many.

    Raises:
        RunError: the file cannot be written.
    """
    columns = max(len(images) for images in rows.values())
    figure = _figure(0.9 * columns + 0.4, 1.3 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, (caption, image) in zip(line, images, strict=False):
            grey = len(image) == 1
            ax.imshow(
                image[0] if grey else image.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=1
            )
            ax.set_title(_text(caption), fontsize="x-small")
        line[0].text(
            -0.1, 0.5, _text(name), transform=line[0].transAxes, ha="right", va="center", fontsize="small"
        )
    _save(figure, path, title)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _save(figure: Figure, path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.suptitle(_text(title))
    FigureCanvasAgg(figure)
    picture = BytesIO()
    # Without the version of matplotlib, which is all that would differ between two machines' files.
    figure.savefig(picture, format="png", metadata={"Software": None})
    with writing(f"the figure {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, picture.getvalue())


def _style(ax: Axes, title: str, x_label: str, y_label: str) -> None:
    ax.set(title=_text(title), xlabel=_text(x_label), ylabel=_text(y_label))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _colours(count: int) -> list[Any]:
    """Return colours that can be told apart: of ten, of twenty, or of a range."""
    from matplotlib import colormaps

    if count <= 20:
        return list(colormaps["tab10" if count <= 10 else "tab20"].colors)  # type: ignore[attr-defined]
    return [colormaps["turbo"](at / (count - 1)) for at in range(count)]


def _text(text: str) -> str:
    """Return a text in which nothing is read as a formula."""
    return text.replace("$", r"\$")


def _label(text: str) -> str:
    """Return a text for a legend, where matplotlib hides names that start with an underscore."""
    return _text(f" {text}" if text.startswith("_") else text)
