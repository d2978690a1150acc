"""robustplug evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..ranks import first_process
from .options import model_options, refuse_empty, result_folder


@click.command()
@click.argument("model")
@click.option("--suite", metavar="NAME|FILE", help="Rows to run; see: robustplug recipes list --suites")
@click.option("--source", "sources", multiple=True, metavar="RUN", help="Transfer attacks from this run.")
@click.option("--reference", metavar="RUN|alexnet", help="Reference that corruption errors are divided by.")
@model_options
def evaluate(
    model: str,
    suite: str | None,
    sources: tuple[str, ...],
    reference: str | None,
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
    """
    from ...report.console import RichReporter
    from ...report.tables.results import result_tables
    from ...report.terminal import Terminal
    from ...run import evaluate as run_evaluate
    from ...runs.result_file import result_to_json, write_result

    folder = result_folder(model, out)
    with RichReporter(Terminal(stderr=True, quiet=quiet or not first_process())) as reporter:
        result = run_evaluate(
            model,
            suite=suite,
            sources=sources,
            reference=reference,
            architecture=architecture,
            out=folder,
            reporter=reporter,
            **options,
        )
    if not first_process():
        return
    console = Terminal()
    console.print(*result_tables(result, console.width), sep="\n")
    written = folder / f"{result.meta['suite'] or 'evaluation'}.json"
    console.print(f"Written to {written}", soft_wrap=True)
    if json_file is not None:
        write_result(json_file, result_to_json(result))
    refuse_empty(result)
