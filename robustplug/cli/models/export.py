"""robustplug export."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option(
    "--to",
    required=True,
    type=click.Choice(["onnx", "torch-export", "safetensors", "huggingface"]),
    help="Format; huggingface is a folder with config.json, model.safetensors and a model card.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder.  [default: exported/NAME in the run folder]",
)
def export(run: str, to: str, out: Path | None) -> None:
    """Write the model of a run for other programs, and check the file.

    The file contains the normalisation and takes batches of any size. It is evaluated on ten batches of the
    run's task, and removed if it disagrees with the model.

    \b
    robustplug export runs/cat-digits --to onnx --out cat.onnx
    robustplug evaluate cat.onnx --task digits
    """
    from ...exports.export import export as export_run
    from ...report.console import RichReporter
    from ...report.terminal import Terminal

    with RichReporter(Terminal(stderr=True)) as reporter:
        found = export_run(run, to, out, reporter=reporter)
    sizes = ", ".join(map(str, found.shape))
    lines = (
        f"Written to {found.path}: from inputs (N, {sizes}) to logits (N, {found.classes}).",
        f"Checked: {found.agreement}.",
    )
    Terminal().print(*lines, sep="\n", soft_wrap=True)
