"""robustplug audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..ranks import first_process
from .options import Finite, model_options, refuse_empty, result_folder, sharing_options


@click.command()
@click.argument("model")
@click.option(
    "--source", "sources", multiple=True, metavar="RUN", help="Also run transfer attacks from this run."
)
@click.option("--samples", type=click.IntRange(min=1), help="Number of samples, from the start of the split.")
@click.option(
    "--budget",
    type=Finite(min=0, min_open=True),
    metavar="MINUTES",
    help="Let no attack go on after this time; checks without their attack are not run.",
)
@sharing_options
@model_options
def audit(
    model: str,
    architecture: str | None,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Check whether robustness is real or due to gradient masking.

    MODEL is as for evaluate. Each check is a statistical test. Grades: A (no sign of masked gradients), B
    (none, but weaker checks), U (undecided: too little could run), F (masked, and what is).

    \b
    robustplug audit runs/cat-digits --source runs/erm-digits
    """
    from ...report.console import RichReporter
    from ...report.tables.results import audit_table, result_tables
    from ...report.terminal import Terminal
    from ...run import audit as run_audit
    from ...runs.result_file import result_to_json, write_result

    folder = result_folder(model, out)
    with RichReporter(Terminal(stderr=True, quiet=quiet or not first_process())) as reporter:
        found = run_audit(model, architecture=architecture, out=folder, reporter=reporter, **options)
    if not first_process():
        return
    body = {**result_to_json(found.result), "audit": found.to_json()}
    console = Terminal()
    console.print(*result_tables(found.result, console.width), audit_table(body["audit"]), sep="\n")
    written = folder / f"{found.result.meta['file']}.json"
    console.print(f"Written to {written}", soft_wrap=True)
    if json_file is not None:
        write_result(json_file, body)
    refuse_empty(found.result)
