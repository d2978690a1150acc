"""robustplug hard-label: distortion and success against queries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustplug.api import echo, model_options, result_folder

if TYPE_CHECKING:
    from robustplug.api import OpenedEvaluation

    from .attack import HardLabel
    from .peers import Peer
    from .pool import Sample

NAME = "hard-label"
# Number of points drawn of a trajectory.
SHOWN = 7


@click.group("hard-label")
def hard_label() -> None:
    """Compare decision-based attacks."""


@hard_label.command()
@click.argument("model")
@click.option("--suite", default=NAME, show_default=True, metavar="NAME|FILE", help="Attacks to compare.")
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first N samples.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="EPS",
    help="Distance that counts as success; may be repeated.",
)
@model_options
def curves(
    model: str,
    suite: str,
    thresholds: tuple[str, ...],
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw distortion and success rate against queries.

    The figures have one line for each attack of the suite.

    MODEL is as for evaluate. The attacks run on the samples that the model classifies correctly, until the
    query budgets are spent. The results are written to hard-label.json and figures/, and for a run folder
    also to its result.json.

    \b
    robustplug hard-label curves runs/erm-digits --samples 50
    """
    from robustplug.api import note_in_result, open_evaluation, write_result

    levels = [_number(text) for text in thresholds]
    opened = open_evaluation(model, suite=suite, **options)
    folder = result_folder(model, out)

    def keep(result: dict[str, Any], line: str) -> None:
        write_result(folder / f"{NAME}.json", result)
        if not quiet:
            echo(line, err=True)

    result, paths = measure(opened, levels, keep)
    if json_file is not None:
        write_result(json_file, result)
    if out is None and Path(model, "result.json").is_file():
        note_in_result(Path(model), NAME, result)
    draw(folder / "figures", opened, result, paths)
    for line in table(result):
        echo(line)
    echo(f"{folder / NAME}.json\n{folder / 'figures'}")


def _number(text: str) -> float:
    from robustplug.api import parse_fraction

    try:
        value = float(str(parse_fraction(text)))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--threshold") from None
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text} is not a finite distance above 0", param_hint="--threshold")
    return value


def measure(
    opened: OpenedEvaluation, thresholds: list[float], keep: Callable[[dict[str, Any], str], None]
) -> tuple[dict[str, Any], dict[str, Sample]]:
    """Run the attacks of an opened evaluation until their query budgets are spent.

    Args:
        opened: model and attacks.
        thresholds: distances within which an attack counts as successful; empty for each row's eps.
        keep: called after each row with the result so far and a line to print.

    Returns:
        The result, and for each attack its first sample with its path.
    """
    from robustplug.api import Refused

    from .curves import adbd, distances_at, finite, grid, summary
    from .pool import SearchFailed

    rows: list[dict[str, Any]] = []
    paths: dict[str, Sample] = {}
    with opened.running() as clean:
        result = {**opened.description, "samples": clean.samples, "right": clean.right, "rows": rows}
        for number, attack in enumerate(opened.attacks):
            found: list[Sample] = []
            failed, budget, norm = "", 0, "l2"
            try:
                for step, view, vicinity in opened.steps(attack, number):
                    search = _search(attack)
                    budget = search.queries
                    norm = "l2" if vicinity.norm == 2 else "linf"
                    found += search.samples(step, view, vicinity, keep=not found)
            except Refused as reason:
                failed = str(reason)
            except SearchFailed as error:
                found += error.samples
                failed = str(error)
            row: dict[str, Any] = {"name": attack.label, "options": dict(attack.options)}
            if found:
                eps = float(attack.threat.get("eps", opened.threat.get("eps", 0.0)))
                queries = grid(budget)
                row |= {
                    "norm": norm,
                    "asked": [sample.asked for sample in found],
                    "distances": [finite(sample.distance) for sample in found],
                    **summary(distances_at(found, queries), queries, thresholds or [eps]),
                }
                if norm == "linf" and not failed:
                    row["adbd"] = adbd(found, clean.samples)
                if found[0].path:
                    paths[attack.label] = found[0]
            elif not failed:
                failed = "no sample is classified correctly"
            if failed:
                row["failed"] = failed
            rows.append(row)
            keep(result, f"{attack.label}: {failed or 'done'}")
    return result, paths


def _search(attack: Any) -> HardLabel | Peer:
    """Return the search of a row.

    Raises:
        Refused: the row's attack is not such a search.
    """
    from robustplug.api import Refused

    from .attack import HardLabel
    from .peers import Peer

    if not isinstance(attack.perturbation, HardLabel | Peer):
        raise Refused("this attack does not search for the nearest adversarial point")
    return attack.perturbation


def table(result: dict[str, Any]) -> list[str]:
    """Return the lines of Table 2.2: distances and success rates at 1/8, 1/4, 1/2 and all of the queries."""
    lines = [f"{result['right']} of {result['samples']} samples are classified correctly"]
    for row in result["rows"]:
        if "queries" not in row:
            lines.append(f"{row['name']}: not run: {row['failed']}")
            continue
        norm = "L2" if row["norm"] == "l2" else "L∞"
        lines.append(f"{row['name']}, {norm}{': ' + row['failed'] if 'failed' in row else ''}")
        for share in (0.125, 0.25, 0.5, 1):
            at = max(0, round(share * len(row["queries"])) - 1)
            parts = [f"  {row['queries'][at]:7,} queries"]
            parts += [f"{key} {_shown(row[key][at])}" for key in ("median", "mean")]
            parts += [f"within {eps}: {100 * rates[at]:.1f} %" for eps, rates in row["success"].items()]
            lines.append("  ".join(parts))
        if "adbd" in row:
            lines.append(f"  average decision boundary distance {row['adbd']:.4f}")
    return lines


def _shown(value: float | None) -> str:
    return "   —  " if value is None else f"{value:.4f}"


def draw(folder: Path, opened: OpenedEvaluation, result: dict[str, Any], paths: dict[str, Sample]) -> None:
    """Draw median distances and success rates against queries, and the first sample's trajectories."""
    from robustplug.api import Line, Panel, image_figure, line_figure

    name, shape = opened.name, opened.shape
    rows = [row for row in result["rows"] if "queries" in row]
    for norm in sorted({row["norm"] for row in rows}):
        of_norm = [row for row in rows if row["norm"] == norm]
        longest = max((row["queries"] for row in of_norm), key=lambda queries: queries[-1])
        medians = [Line(row["name"], _on(longest, row, row["median"])) for row in of_norm]
        title = f"Hard-label attacks on {name}"
        path = folder / f"hard-label-distance-{norm}.png"
        label = f"median {'L∞' if norm == 'linf' else 'L2'} distance"
        line_figure(path, title, longest, [Panel("", medians)], "queries", label)
        panels = [
            Panel(
                f"within {eps}",
                [
                    Line(row["name"], [100 * value for value in _on(longest, row, row["success"][eps])])
                    for row in of_norm
                    if eps in row["success"]
                ],
            )
            for eps in sorted({eps for row in of_norm for eps in row["success"]}, key=float)
        ]
        path = folder / f"hard-label-success-{norm}.png"
        line_figure(path, title, longest, panels, "queries", "success rate (%)", (0, 100))
    if paths and shape is not None and len(shape) == 3:
        images = {label: _trajectory(sample, shape) for label, sample in paths.items()}
        image_figure(
            folder / "hard-label-paths.png", f"The first sample of {name}: queries, and distance", images
        )


def _on(queries: list[int], row: dict[str, Any], values: list[float | None]) -> list[float]:
    """Return a row's values at other query counts: the latest value up to each, NaN before the first."""
    known = [math.nan if value is None else value for value in values]
    at = -1
    found = []
    for query in queries:
        while at + 1 < len(known) and row["queries"][at + 1] <= query:
            at += 1
        found.append(known[at] if at >= 0 else math.nan)
    return found


def _trajectory(sample: Sample, shape: tuple[int, ...]) -> list[tuple[str, Any]]:
    """Return the sample and some points of its search, with query counts and distances: Figure 2.9."""
    path = sample.path or []
    chosen = sorted({round(at * (len(path) - 1) / (SHOWN - 1)) for at in range(SHOWN)})
    images = [("original", sample.x.reshape(shape))]
    for at in chosen:
        asked, distance = sample.trace[at]
        images.append((f"{asked:,}: {distance:.3f}", path[at].reshape(shape)))
    return images
