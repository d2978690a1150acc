"""robustplug certify: certified radii of a model by randomised smoothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from robustplug.api import (
    certified_figure,
    echo,
    evaluate_and_show,
    model_options,
    result_folder,
    sharing_options,
)

NAME = "certify"
_CERTIFICATE = "randomised-smoothing"


@click.command()
@click.argument("model")
@click.option("--sigma", type=click.FloatRange(min=0, min_open=True), default=0.25, show_default=True)
@click.option(
    "--n", type=click.IntRange(min=1), default=100_000, show_default=True, help="Draws of a sample."
)
@click.option("--n0", type=click.IntRange(min=1), default=100, show_default=True, help="Draws for its class.")
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True, max=0.5, max_open=True), default=0.001)
@click.option("--noise", type=click.Choice(["gaussian", "uniform"]), default="gaussian", show_default=True)
@click.option("--norm", type=click.Choice(["l2", "linf", "l1"]), default="l2", show_default=True)
@click.option(
    "--radius", type=click.FloatRange(min=0), help="Radius of the row's accuracy.  [default: sigma/2]"
)
@click.option("--batch", type=click.IntRange(min=1), help="Draws in one call of the model.")
@click.option("--samples", type=click.IntRange(min=1), help="Number of samples, from the start of the split.")
@sharing_options
@model_options
def certify(
    model: str,
    sigma: float,
    n: int,
    n0: int,
    alpha: float,
    noise: str,
    norm: str,
    radius: float | None,
    batch: int | None,
    samples: int | None,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Certify the radii of a model that votes under noise.

    MODEL is as for evaluate. Any model that classifies can be certified; one that was trained with noise of
    the same sigma certifies more. A killed certification goes on where it was when the command is run again.

    \b
    robustplug certify runs/gaussian-digits --sigma 0.25 --n 100000 --alpha 0.001
    """
    if noise == "uniform" and norm != "l1":
        raise click.UsageError("uniform noise certifies L1 alone: give --norm l1, or --noise gaussian")
    if norm == "linf" and radius is None:
        raise click.UsageError("in L∞ the radius depends on the size of an input: give --radius")
    eps = sigma / 2 if radius is None else radius
    if not all(map(math.isfinite, (sigma, alpha, eps))):
        raise click.UsageError("--sigma, --alpha and --radius are finite numbers")
    if norm != "linf":
        _refuse_large(eps, sigma=sigma, n=n, n0=n0, alpha=alpha, noise=noise, norm=norm)
    table: dict[str, Any] = {"use": _CERTIFICATE, "sigma": sigma, "n": n, "n0": n0, "alpha": alpha}
    table |= {"noise": noise, "norm": norm, "radii": [eps / 2, eps]}
    if batch is not None:
        table["batch"] = batch
    asked = {"attacks": [], "measurements": [table], "threat": {"use": norm, "eps": eps}, "samples": samples}
    if not quiet:
        # Without a terminal there is no bar, and it can take hours.
        echo(f"certifying {model}: {n0 + n:,} passes for each sample", err=True)
    # Certificates of other noise or of another norm lie side by side.
    name = f"{NAME}-{norm}-{noise}-{sigma:g}"
    result = evaluate_and_show(model, out, json_file, quiet, name, **asked, **options)
    if result is None:
        return
    row = result.attacks[-1]
    if row.certified is None:
        return
    if max(row.certified.radii) > 0:
        path = result_folder(model, out) / "figures" / f"{result.meta['file']}.png"
        certified_figure(
            path, f"Certified accuracy, {result.meta['name']}", {row.name: row}, row.certified.norm
        )
        echo(str(path))


def _refuse_large(eps: float, **options: Any) -> None:
    from robustplug.api import Refused

    from . import SmoothingOptions
    from .measurement import refuse_large

    try:
        refuse_large(eps, SmoothingOptions(**options), 1)
    except Refused as why:
        raise click.UsageError(f"{why}, or a smaller --radius") from None
