"""robustplug attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..ranks import first_process
from .options import model_options, refuse_empty, result_folder


@click.command()
@click.argument("subject")
@click.option("--suite", metavar="NAME|FILE", help="Rows to run; see: robustplug recipes list --suites")
@click.option("--attack", "attacks", multiple=True, metavar="NAME", help="An attack to run; may be repeated.")
@click.option("--source", "sources", multiple=True, metavar="RUN", help="Transfer attacks from this run.")
@click.option("--images", type=click.Choice(["png"]), help="Also write the examples as pictures.")
@model_options
def attack(
    subject: str,
    suite: str | None,
    attacks: tuple[str, ...],
    sources: tuple[str, ...],
    images: str | None,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Write the adversarial examples of a run folder or a model file.

    SUBJECT is as for evaluate. examples.safetensors contains for each sample and row that broke it: index,
    label, prediction before and after, the clean input and the example. Images are checked again after
    rounding to 8 bits.

    \b
    robustplug attack runs/cat-digits --attack pgd --out examples --images png
    robustplug attack net.onnx --task digits --suite quick --out examples
    """
    from ...errors import RunError
    from ...evaluation.examples import FILE, PICTURES
    from ...report.console import RichReporter
    from ...report.tables.results import result_tables
    from ...report.terminal import Terminal
    from ...run import evaluate as run_evaluate
    from ...runs.result_file import result_to_json, write_result

    if suite is not None and attacks:
        raise click.UsageError("give either --suite or --attack")
    folder = result_folder(subject, None) / "examples" if out is None else out
    with RichReporter(Terminal(stderr=True, quiet=quiet or not first_process())) as reporter:
        result = run_evaluate(
            subject,
            suite=suite,
            attacks=list(attacks) or None,
            sources=sources,
            keep_examples=True,
            images="png" if images else None,
            out=folder,
            reporter=reporter,
            **options,
        )
    if not first_process():
        return
    console = Terminal()
    console.print(*result_tables(result, console.width), sep="\n")
    if result.examples is None:
        console.print("No attack broke a sample: there are no examples.")
    else:
        written = folder / PICTURES if images else folder / FILE
        console.print(f"{len(result.examples)} examples in {written}", soft_wrap=True)
    if json_file is not None:
        write_result(json_file, result_to_json(result))
    if not result.attacks[1:]:
        raise RunError("nothing was run, as the recipe has no attack: name one with --attack, or a --suite")
    refuse_empty(result)
