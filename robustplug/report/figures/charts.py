"""Figures of plain numbers, written as PNG and SVG; equal numbers produce equal files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .canvas import course, legend_label, logarithmic, looks, new_figure, number, plain, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .canvas import Look

# Lines with more values are drawn without a marker at each value.
_MARKED = 40
# Descriptions contain at most this many lines, and the number of the others.
_TOLD = 8


@dataclass(frozen=True)
class Line:
    """Hold one line of a panel.

    Attributes:
        label: label for the legend.
        y: a value for each x; NaN for none.
        error: half the length of each error bar; NaN for none.
        ends: lower and upper end of each error bar, instead of `error`.
    """

    label: str
    y: Sequence[float]
    error: Sequence[float] = ()
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """Hold the lines of one panel, its title, and the label of its y axis if it has its own."""

    title: str
    lines: Sequence[Line]
    y_label: str = ""


def line_figure(
    path: Path,
    title: str,
    x: Sequence[float],
    panels: Sequence[Panel],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    legend: str = "",
    marks: Mapping[str, float] | None = None,
) -> None:
    """Draw panels of lines over the same x.

    Args:
        path: path of the PNG; its folder is created, and an SVG of the same name is written beside it.
        title: title of the figure.
        x: x values, in any order.
        panels: at least one panel, each with at least one line.
        x_label, y_label: labels of the axes, with units.
        y_range: range of the y axis in all panels; None to fit the values.
        legend: title of the legends.
        marks: positions on the x axis, by their name in the legend.

    Raises:
        RunError: the file cannot be written.
    """
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    count = math.ceil(len(panels) / columns)
    figure = new_figure(4.2 * columns + 1.2, 3.6 * count + 0.4)
    axes = figure.subplots(count, columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    told = []
    for ax, panel in zip(axes.flat, panels, strict=False):
        for line, look in zip(panel.lines, looks(len(panel.lines)), strict=True):
            _draw_line(ax, x, line, look)
        for name, place in (marks or {}).items():
            ax.axvline(place, color="#555555", linewidth=1, dashes=(1, 2), label=legend_label(name))
        _x_axis(ax, x)
        if y_range is not None:
            ax.set_ylim(*y_range)
        own = panel.y_label or y_label
        style(ax, panel.title, x_label, own)
        if len(panel.lines) > 1 or panel.lines[0].label or marks:
            ax.legend(title=plain(legend) or None, fontsize="small", title_fontsize="small")
        told.append(_panel_words(panel, x, own))
    places = "".join(f" {name} is at {number(place)}." for name, place in (marks or {}).items())
    save(figure, path, title, f"{title}, against {x_label}. {' '.join(told)}{places}")


def _draw_line(ax: Axes, x: Sequence[float], line: Line, look: Look) -> None:
    """Draw a line through the values that are not NaN."""
    order = [at for at in sorted(range(len(x)), key=lambda at: x[at]) if not math.isnan(line.y[at])]
    errors: Any = yerror_of([line.error[at] for at in order]) if line.error else None
    if line.ends:
        pairs = [(line.y[at], *line.ends[at]) for at in order]
        # Rounding may put an end on the wrong side of its value.
        errors = [[max(0.0, y - low) for y, low, _ in pairs], [max(0.0, high - y) for y, _, high in pairs]]
    ax.errorbar(
        [x[at] for at in order],
        [line.y[at] for at in order],
        errors,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker if len(x) <= _MARKED else "",
        markersize=4,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2.5,
        label=legend_label(line.label),
    )


def _x_axis(ax: Axes, x: Sequence[float]) -> None:
    from matplotlib import ticker

    if logarithmic(x):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(ticker.NullLocator())
        shown = _apart(sorted(set(x)))
        ax.set_xticks(shown, [number(value) for value in shown])
    elif len(set(x)) <= 8:
        ax.set_xticks(sorted(set(x)), [number(value) for value in sorted(set(x))])
    elif all(float(value).is_integer() for value in x):
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


def _apart(values: Sequence[float]) -> list[float]:
    """Return the values of a logarithmic axis that are far enough apart to be labelled."""
    least = math.log(values[-1] / values[0]) / 9
    shown = [values[0]]
    for value in values[1:]:
        if math.log(value / shown[-1]) >= least:
            shown.append(value)
    return shown


def _panel_words(panel: Panel, x: Sequence[float], y_label: str) -> str:
    order = sorted(range(len(x)), key=lambda at: x[at])
    lines = [
        f"{line.label or y_label} {course([x[at] for at in order], [line.y[at] for at in order])}"
        for line in panel.lines[:_TOLD]
    ]
    more = len(panel.lines) - len(lines)
    head = f"{panel.title}, {y_label}" if panel.title else y_label
    return f"{head}: {'; '.join(lines)}{f'; and {more} more lines' if more else ''}."


def yerror_of(error: Sequence[float]) -> Sequence[float] | None:
    """Return the error bars, or None if all are NaN."""
    return None if all(math.isnan(value) for value in error) else error


def bar_figure(
    path: Path,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    x_range: tuple[float, float] | None = None,
) -> None:
    """Draw groups of horizontal bars, the first group on top, one colour per series.

    Args:
        path: path of the PNG; its folder is created.
        title: title of the figure.
        groups: labels of the groups.
        series: for each name, a value and half an error bar for each group; NaN for none.
        x_label: label of the values.
        x_range: range of the values; None to fit them.

    Raises:
        RunError: the file cannot be written.
    """
    height = 0.8 / max(1, len(series))
    figure = new_figure(8.0, 1.6 + len(groups) * max(0.4, 0.22 * len(series)))
    ax = figure.subplots()
    told = []
    for at, ((name, (values, errors)), look) in enumerate(
        zip(series.items(), looks(len(series)), strict=True)
    ):
        offset = (at - (len(series) - 1) / 2) * height
        places = [place + offset for place in range(len(groups))]
        # A NaN draws no bar, so the description omits it.
        bars: dict[str, Any] = {"color": look.colour, "hatch": look.hatch, "edgecolor": "white", "lw": 0.5}
        ax.barh(places, values, height, **bars, label=legend_label(name))
        ax.errorbar(values, places, xerr=yerror_of(errors), fmt="none", ecolor="black", capsize=2, lw=1)
        known = [
            f"{' '.join(group.split())} {number(value)}"
            for group, value in zip(groups, values, strict=True)
            if not math.isnan(value)
        ]
        told.append(f"{name}: {', '.join(known) or 'no values'}.")
    ax.set_yticks(range(len(groups)), [plain(group) for group in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    if x_range is not None:
        ax.set_xlim(*x_range)
    style(ax, "", x_label, "")
    # The legend is below, so that the bars have the full width on narrow pages, too.
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.12 * 4 / figure.get_figheight()))
    save(figure, path, title, f"{title}: {x_label} as bars. {' '.join(told)}")


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
        path: path of the PNG; its folder is created.
        title: title of the figure.
        row_labels, column_labels: labels of the rows and columns.
        values: a row for each row label; NaN for a cell without a value, which stays empty.
        format: format of the numbers, as for `str.format`.

    Raises:
        ValueError: the numbers of labels differ from the numbers of rows and columns.
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
    figure = new_figure(width, 1.2 + below + 0.45 * len(row_labels))
    ax = figure.subplots()
    image = ax.imshow(values, cmap="viridis", aspect="auto")
    known = [value for row in values for value in row if not math.isnan(value)]
    # White letters on the dark half of the colours, black ones on the bright half.
    bright = min(known, default=0.0) + 0.6 * (max(known, default=0.0) - min(known, default=0.0))
    ax.set_xticks(range(len(column_labels)), [plain(label) for label in column_labels])
    if max(map(len, column_labels), default=0) > 3:
        ax.tick_params(axis="x", rotation=45)
        for label in ax.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    ax.set_yticks(range(len(row_labels)), [plain(label) for label in row_labels])
    for at, row in enumerate(values):
        for column, value in enumerate(row):
            ax.text(
                column,
                at,
                plain(texts[at][column]),
                ha="center",
                va="center",
                color="white" if value < bright else "black",
                fontsize="small",
            )
    figure.colorbar(image, ax=ax)
    told = [
        f"{row} and {column} {text}"
        for row, line in zip(row_labels, texts, strict=True)
        for column, text in zip(column_labels, line, strict=True)
        if text and len(row_labels) * len(column_labels) <= _TOLD
    ]
    if not told and known:
        told = [
            f"{len(row_labels)} by {len(column_labels)} values {number(min(known))} to {number(max(known))}"
        ]
    save(figure, path, title, f"{title}: a matrix of numbers. {', '.join(told)}.")


def histogram_figure(
    path: Path, title: str, groups: Mapping[str, Sequence[float]], label: str, bins: int = 40
) -> None:
    """Draw a histogram for each group, one below the other, over the same bins.

    Args:
        path: path of the PNG; its folder is created.
        title: title of the figure.
        groups: values by the title of their panel; at least one group.
        label: label of the values.
        bins: number of bins.

    Raises:
        RunError: the file cannot be written.
    """
    figure = new_figure(6.0, 1.1 + 1.5 * len(groups))
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)
    least = min(min(values) for values in groups.values())
    most = max(max(values) for values in groups.values())
    for ax, (name, values) in zip(axes.flat, groups.items(), strict=True):
        ax.hist(
            values, bins=bins, range=(least, most if most > least else least + 1), color=looks(1)[0].colour
        )
        style(ax, name, "", "samples")
    axes.flat[-1].set_xlabel(plain(label))
    told = [
        f"{name}: {len(values)} samples, from {number(min(values))} to {number(max(values))}, "
        f"mean {number(sum(values) / len(values))}."
        for name, values in groups.items()
    ]
    save(figure, path, title, f"{title}: histograms of {label}. {' '.join(told)}")


def image_figure(path: Path, title: str, rows: Mapping[str, Sequence[tuple[str, Any]]]) -> None:
    """Draw rows of small images.

    Args:
        path: path of the PNG; its folder is created.
        title: title of the figure.
        rows: (caption, image (C, H, W) with values in [0, 1]) by row title; equally many in each row.

    Raises:
        RunError: the file cannot be written.
    """
    columns = max(len(images) for images in rows.values())
    figure = new_figure(0.95 * columns + 0.4, 1.35 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, (caption, image) in zip(line, images, strict=False):
            grey = len(image) == 1
            ax.imshow(
                image[0] if grey else image.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=1
            )
            ax.set_title(plain(caption), fontsize="small")
        line[0].set_ylabel(plain(name), fontsize="small")
    told = [
        f"{name}: {', '.join(' '.join(caption.split()) for caption, _ in images)}."
        for name, images in rows.items()
    ]
    save(figure, path, title, f"{title}: rows of images with their captions. {' '.join(told)}")
