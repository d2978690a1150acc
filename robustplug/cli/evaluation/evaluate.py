"""robustplug evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import evaluate_and_show, model_options, sharing_options


@click.command()
@click.argument("model")
@click.option("--suite", metavar="NAME|FILE", help="Rows to run; see: robustplug recipes list --suites")
@click.option(
    "--measure", "measures", multiple=True, metavar="NAME", help="Also measure this of each sample."
)
@click.option(
    "--wrapper", metavar="NAME", help="Evaluate the model within this wrapper, such as a smoothing."
)
@click.option("--source", "sources", multiple=True, metavar="RUN", help="Transfer attacks from this run.")
@click.option("--reference", metavar="RUN|alexnet", help="Reference that corruption errors are divided by.")
@click.option(
    "--max-queries",
    type=click.IntRange(min=1),
    help="Bound on the requests to a language model; the same as --set model.max_queries=N.",
)
@sharing_options
@model_options
def evaluate(
    model: str,
    measures: tuple[str, ...],
    max_queries: int | None,
    overrides: tuple[str, ...],
    architecture: str | None,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Evaluate a run folder or a model file under attacks.

    To resume an interrupted evaluation, run the same command again. MODEL is a run folder, a file
    (safetensors, TorchScript, torch.export, ONNX, LightGBM, XGBoost), a model by name (torchvision:NAME,
    timm:NAME, huggingface-image:NAME, robustbench:NAME), or a folder that a component reads
    (huggingface:FOLDER, an encoder-decoder for text).

    \b
    robustplug evaluate runs/cat-digits --suite standard
    robustplug evaluate net.onnx --task digits --suite quick
    robustplug evaluate runs/cat-digits --suite standard --processes 8 --launcher slurm --set launcher.gpus=1
    """
    if max_queries is not None:
        overrides = (*overrides, f"model.max_queries={max_queries}")
    given: dict[str, Any] = {
        "overrides": overrides,
        "architecture": architecture,
        "measurements": list(measures) or None,
    }
    evaluate_and_show(model, out, json_file, quiet, **given, **options)
