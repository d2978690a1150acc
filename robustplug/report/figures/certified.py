"""Draw certified accuracy against the radius, and which samples are certified, undecided and broken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.measures import wilson_interval
from ...core.types import AttackResult, Result
from ..material import Material
from ..tables.threats import threat_text, unit_images
from .charts import Line, Panel, bar_figure, line_figure
from .drawn import Drawn, title_of

# Radii at which a curve is drawn.
_POINTS = 40
_NAMES = {"inf": "linf", "2": "l2", "1": "l1"}


def certified_accuracy(radii: Sequence[float], at: float) -> float:
    """Return the share of samples that are certified at a radius; at 0, of those predicted rightly.

    Args:
        radii: certified radius of each sample; -1 for none.
        at: the radius.
    """
    return sum(each >= at for each in radii) / len(radii) if radii else math.nan


def certified_figure(path: Path, title: str, rows: Mapping[str, AttackResult], norm: str) -> None:
    """Draw certified accuracy against the radius, with 95 % Wilson intervals.

    Args:
        path: path of the PNG; an SVG is written beside it.
        title: title of the figure.
        rows: rows of certificates of one norm, by their label; at least one of them certifies something.
        norm: that norm.

    Raises:
        RunError: a file cannot be written.
    """
    known = {name: row.certified.radii for name, row in rows.items() if row.certified is not None}
    largest = max(max(radii, default=0.0) for radii in known.values())
    x = [largest * 1.05 * point / _POINTS for point in range(_POINTS + 1)]
    lines = []
    for name, radii in known.items():
        shares = [certified_accuracy(radii, at) for at in x]
        ends = [wilson_interval(round(share * len(radii)), len(radii)) for share in shares]
        y = [100 * share for share in shares]
        lines.append(Line(name, y, ends=[(100 * low, 100 * high) for low, high in ends]))
    label = f"certified radius ({_NAMES.get(norm, norm)})"
    line_figure(path, title, x, [Panel("", lines)], label, "certified accuracy (%)", (-2, 102))


def draw_certified(material: Material, folder: Path) -> Drawn:
    """Draw the certificates of all evaluations of a run; yield each figure's path and note."""
    name = title_of(material)
    groups: dict[str, dict[str, AttackResult]] = {}
    for suite, result in material.results.items():
        for row in result.attacks:
            said = row.certified
            if said is not None and not row.skipped and max(said.radii, default=-1.0) > 0:
                groups.setdefault(said.norm, {})[f"{row.name} ({suite})" if suite else row.name] = row
    for norm, rows in groups.items():
        path = folder / f"certified-{_NAMES.get(norm, norm)}.png"
        certified_figure(path, f"Certified accuracy, {name}", rows, norm)
        about = dict.fromkeys(row.certified.about for row in rows.values() if row.certified is not None)
        of = f" It is about {' and '.join(filter(None, about))}." if any(about) else ""
        note = "A lower bound: no attack within the radius can break these samples. Bars are 95 % intervals."
        yield path, note + of
    yield from _draw_sides(material.results, folder, name)


def _draw_sides(results: Mapping[str, Result], folder: Path, name: str) -> Drawn:
    """Draw for each threat model with a certificate which samples are certified, undecided and broken."""
    groups: list[str] = []
    shares: dict[str, list[float]] = {"certified": [], "undecided": [], "broken or wrong": []}
    for suite, result in results.items():
        for sides in result.meta.get("bounds") or ():
            threat = threat_text(sides["threat"], unit_images(result))
            groups.append(f"{threat} ({suite})" if suite else threat)
            parts = (sides["certified"], sides["undecided"], 1 - sides["robust"])
            for values, part in zip(shares.values(), parts, strict=True):
                values.append(100 * part)
    if groups:
        none = [math.nan] * len(groups)
        series = {part: (values, none) for part, values in shares.items()}
        path = folder / "bounds.png"
        bar_figure(path, f"Certified, undecided and broken, {name}", groups, series, "samples (%)", (0, 100))
        yield path, "Undecided: no certificate holds for them, and no attack broke them."
