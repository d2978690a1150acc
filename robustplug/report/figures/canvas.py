"""Common parts of all figures: styles that are distinct without colour, and files with descriptions.

Figures are drawn without pyplot, so they need no display and change no global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ...runs.folder import write_atomic, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
# In inches; not every viewer opens larger pictures.
TALLEST = 200.0
# Okabe & Ito 2008, Color Universal Design, without its yellow, which is too faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_HATCHES = ("", "///", "...", "xxx")


@dataclass(frozen=True)
class Look:
    """Hold the style of one of several lines or bars; two styles never differ in colour alone."""

    colour: str
    dash: str
    marker: str
    hatch: str


def looks(count: int) -> list[Look]:
    """Return styles for this many lines or bars; the first 28 combine colour and dash or hatch uniquely."""
    return [
        Look(
            _COLOURS[at % len(_COLOURS)],
            _DASHES[at % len(_DASHES)],
            _MARKERS[at % len(_MARKERS)],
            _HATCHES[at % len(_HATCHES)],
        )
        for at in range(count)
    ]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(min(width, TALLEST), min(height, TALLEST)), dpi=_DPI, layout="constrained")


def style(ax: Axes, title: str, x_label: str, y_label: str) -> None:
    """Label axes, add a grid, and hide the upper and right spines."""
    from matplotlib.ticker import ScalarFormatter

    ax.set(title=plain(title), xlabel=plain(x_label), ylabel=plain(y_label))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            # Show full numbers at the ticks instead of an offset in a corner.
            formatter.set_useOffset(False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def logarithmic(values: Sequence[float]) -> bool:
    """Return whether a logarithmic axis spreads these values better."""
    return min(values) > 0 and max(values) / min(values) >= 50


def plain(text: str) -> str:
    """Return a text that matplotlib does not parse as a formula."""
    return text.replace("$", r"\$")


def legend_label(text: str) -> str:
    """Return a text for a legend; matplotlib would hide names that start with an underscore."""
    return plain(f" {text}" if text.startswith("_") else text)


def number(value: float) -> str:
    """Return a number in the format of descriptions."""
    return f"{value:.4g}"


def course(x: Sequence[float], y: Sequence[float]) -> str:
    """Return "from 98 at 0 to 12 at 0.2, minimum 12, maximum 98" for points in order of x."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(b)]
    if not known:
        return "no values"
    (first, start), (last, end) = known[0], known[-1]
    if len(known) == 1:
        return f"{number(start)} at {number(first)}"
    values = [b for _, b in known]
    line = f"from {number(start)} at {number(first)} to {number(end)} at {number(last)}"
    if min(values) < min(start, end) or max(values) > max(start, end):
        line += f", minimum {number(min(values))}, maximum {number(max(values))}"
    return line


def save(figure: Figure, path: Path, title: str, description: str) -> None:
    """Write a figure as PNG and SVG, with title and description in their metadata.

    Equal numbers produce equal files.

    Args:
        figure: figure to write.
        path: path of the PNG; the SVG is written beside it. The folder is created.
        title: title of the figure, also drawn above it.
        description: what the figure shows, in words, for readers who cannot see it.

    Raises:
        RunError: a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.suptitle(plain(title))
    FigureCanvasAgg(figure)
    said = {"Title": title, "Description": description}
    picture, drawing = BytesIO(), BytesIO()
    # Version, date and random names are left out, because only they would differ between two machines.
    figure.savefig(picture, format="png", metadata={**said, "Software": None})
    with rc_context({"svg.hashsalt": "robustplug"}):
        figure.savefig(drawing, format="svg", metadata={**said, "Date": None, "Creator": None})
    with writing(f"the figure {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, picture.getvalue())
        write_atomic(path.with_suffix(".svg"), drawing.getvalue())
