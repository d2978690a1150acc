"""robustplug mask: one trained model, many trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustplug.api import echo

if TYPE_CHECKING:
    from torch import nn

    from robustplug.api import OpenedRun


def numbers(_: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    """Read "0:8/255:2/255" (first, last, step) or "0,4/255,8/255"."""
    from robustplug.api import parse_fraction

    try:
        parts = [float(str(parse_fraction(part))) for part in text.replace(":", ",").split(",")]
        if ":" not in text:
            return parts
        first, last, step = parts
        if step <= 0 or last < first:
            raise ValueError("LAST must not be below FIRST, and STEP must be above 0")
    except ValueError as error:
        raise click.BadParameter(f"{error}; write FIRST:LAST:STEP, or numbers separated by commas") from None
    count = int((last - first) / step + 1e-9)
    return [round(first + step * at, 12) for at in range(count + 1)]


@click.group()
def mask() -> None:
    """Evaluate several masks (rescalings of BatchNorm) of one model."""


@mask.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--eps", "radii", default="0:8/255:2/255", callback=numbers, show_default=True)
@click.option(
    "--samples", type=click.IntRange(min=1), help="Number of test samples, from the start of the split."
)
def sweep(run: Path, radii: list[float], samples: int | None) -> None:
    """Evaluate RUN under the masks of several ε.

    RUN is the folder of a run that was trained with robmask or advprop.

    Each mask is folded into plain BatchNorm before the evaluation. Attacks and threat model are those of
    the run's recipe. The results are written to masks.json and figures/masks.png in the run folder.
    """
    from robustplug.api import open_run

    from .masks import fold
    from .method import RobMask

    opened = open_run(run)
    if not isinstance(opened.method, RobMask):
        raise click.UsageError(f"{run} was not trained with robmask or advprop")
    largest = float(opened.method.vicinity.eps)
    wrong = [eps for eps in radii if not 0 <= eps <= largest * (1 + 1e-6)]
    if wrong:
        raise click.BadParameter(
            f"{wrong[0]:g} is not between 0 and {largest:g}, the run's largest radius", param_hint="--eps"
        )
    models = [(eps, fold(opened.trained, eps / largest if largest else 0.0)) for eps in radii]
    _report(opened, models, "eps", run / "masks.json", run / "figures" / "masks.png", samples)


def draw_masks(opened: OpenedRun, folder: Path) -> bool:
    """Draw the first BatchNorm layer under two masks, thesis Fig. 6.1; return whether there are masks."""
    from robustplug.api import batchnorm_figure

    from .masks import fold
    from .method import RobMask

    if not isinstance(opened.method, RobMask):
        return False
    largest = float(opened.method.vicinity.eps)
    models = {
        "mask of ε = 0": fold(opened.trained, 0.0),
        f"mask of ε = {largest:.4g}": fold(opened.trained, 1.0),
    }
    return batchnorm_figure(
        folder / "batchnorm.png", f"Masks of the first BatchNorm layer, {opened.name}", models
    )


@mask.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option(
    "--p",
    "shares",
    default="0:1:0.2",
    callback=numbers,
    show_default=True,
    help="Shares of RUN_A in the interpolation.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), help="Number of test samples, from the start of the split."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("masks"), show_default=True)
def interpolate(run_a: Path, run_b: Path, shares: list[float], samples: int | None, out: Path) -> None:
    """Interpolate between the BatchNorm layers of two runs.

    p = 1 is the model of RUN_A, p = 0 that of RUN_B.

    The runs may differ only in BatchNorm: fine-tune one from the other with train.only = "batchnorm".
    The attacks are those of RUN_A's recipe. The results are written to result.json and masks.png in --out.
    """
    from robustplug.api import Refused, open_run

    from .masks import interpolate as between

    first, second = open_run(run_a), open_run(run_b)
    if any(not 0 <= p <= 1 for p in shares):
        raise click.BadParameter("every p must be between 0 and 1", param_hint="--p")
    try:
        models = [(p, between(first.model, second.model, p)) for p in shares]
    except Refused as reason:
        raise click.UsageError(f"{run_a} and {run_b}: {reason}") from None
    _report(first, models, "p", out / "result.json", out / "masks.png", samples)


def _report(
    opened: OpenedRun,
    models: Sequence[tuple[float, nn.Module]],
    name: str,
    file: Path,
    figure: Path,
    samples: int | None,
) -> None:
    """Evaluate models in turn; print, write and draw their accuracies."""
    from robustplug.api import Line, Panel, line_figure, write_result

    rows: list[dict[str, Any]] = []
    for value, model in models:
        result = opened.evaluate(model, samples)
        accuracies = {
            f"{at}. {row.name}" if at else row.name: row.accuracy for at, row in enumerate(result.attacks)
        }
        rows.append({name: value, **accuracies})
        echo(
            f"{name} = {value:<8.4g} " + "  ".join(f"{key} {100 * a:.2f} %" for key, a in accuracies.items())
        )
    columns = [key for key in rows[0] if key != name]
    body = {"run": opened.name, "threat": dict(result.threat), "samples": result.samples, "rows": rows}
    write_result(file, body)
    lines = [Line(column, [100 * row[column] for row in rows]) for column in columns]
    line_figure(
        figure,
        f"Masks of {opened.name}",
        [row[name] for row in rows],
        [Panel("", lines)],
        {"eps": "ε of the mask", "p": "p"}[name],
        "accuracy (%)",
        (0, 100),
    )
    echo(f"{file}\n{figure}")
