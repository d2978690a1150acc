"""What all figures share: looks that are told apart in print and by all eyes, and files that speak.

Figures are drawn without pyplot, so that neither a display nor global state is touched.
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
# In inches: beyond it a picture is too large to be opened everywhere.
TALLEST = 200.0
# Okabe & Ito 2008, Color Universal Design, without its yellow, which is too faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_HATCHES = ("", "///", "...", "xxx")


@dataclass(frozen=True)
class Look:
    """Hold how one of several lines or bars looks; colour alone never tells them apart."""

    colour: str
    dash: str
    marker: str
    hatch: str


def looks(count: int) -> list[Look]:
    """Return looks for some lines or bars; the first 28 differ in colour and dash or hatch."""
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
    """Return an empty figure, with its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(min(width, TALLEST), min(height, TALLEST)), dpi=_DPI, layout="constrained")


def style(ax: Axes, title: str, x_label: str, y_label: str) -> None:
    """Label axes, and leave out what carries nothing."""
    from matplotlib.ticker import ScalarFormatter

    ax.set(title=plain(title), xlabel=plain(x_label), ylabel=plain(y_label))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            # Whole numbers at the ticks, instead of what to add to them in a corner.
            formatter.set_useOffset(False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def logarithmic(values: Sequence[float]) -> bool:
    """Tell whether an axis of these values spreads them better if it is logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= 50


def plain(text: str) -> str:
    """Return a text in which nothing is read as a formula."""
    return text.replace("$", r"\$")


def legend_label(text: str) -> str:
    """Return a text for a legend, where matplotlib hides names that start with an underscore."""
    return plain(f" {text}" if text.startswith("_") else text)


def number(value: float) -> str:
    """Return a number as a description says it."""
    return f"{value:.4g}"


def course(x: Sequence[float], y: Sequence[float]) -> str:
    """Return "from 98 at 0 to 12 at 0.2, least 12, most 98" for points in order of x."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(b)]
    if not known:
        return "no values"
    (first, start), (last, end) = known[0], known[-1]
    if len(known) == 1:
        return f"{number(start)} at {number(first)}"
    values = [b for _, b in known]
    line = f"from {number(start)} at {number(first)} to {number(end)} at {number(last)}"
    if min(values) < min(start, end) or max(values) > max(start, end):
        line += f", least {number(min(values))}, most {number(max(values))}"
    return line


def save(figure: Figure, path: Path, title: str, description: str) -> None:
    """Write a figure as PNG and SVG, which say title and description in their metadata.

    Equal numbers give equal files.

    Args:
        figure: to write.
        path: of the PNG; the SVG lies beside it. The folder is made.
        title: of the figure, also drawn above it.
        description: what the figure shows, in words, for those who do not see it.

    Raises:
        RunError: a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.suptitle(plain(title))
    FigureCanvasAgg(figure)
    said = {"Title": title, "Description": description}
    picture, drawing = BytesIO(), BytesIO()
    # Without version, date and random names, which is all that would differ between two machines' files.
    figure.savefig(picture, format="png", metadata={**said, "Software": None})
    with rc_context({"svg.hashsalt": "robustplug"}):
        figure.savefig(drawing, format="svg", metadata={**said, "Date": None, "Creator": None})
    with writing(f"the figure {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, picture.getvalue())
        write_atomic(path.with_suffix(".svg"), drawing.getvalue())
