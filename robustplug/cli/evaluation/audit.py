"""robustplug audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..ranks import first_process
from .options import model_options, result_folder


@click.command()
@click.argument("model")
@click.option(
    "--source", "sources", multiple=True, metavar="RUN", help="Also run transfer attacks from this run."
)
@click.option("--samples", type=click.IntRange(min=1), help="Number of samples, from the start of the split.")
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

    MODEL is as for evaluate. Each check has a verdict; all verdicts together determine a grade from A to F.

    \b
    robustplug audit runs/cat-digits --source runs/erm-digits
    """
    from rich.console import Console

    from ...evaluation.audit.audit import NAME
    from ...report.console import RichReporter
    from ...report.tables.results import audit_table, result_tables
    from ...run import audit as run_audit
    from ...runs.folder import write_json, writing
    from ...runs.result_file import result_to_json

    folder = result_folder(model, out)
    with RichReporter(Console(stderr=True, quiet=quiet or not first_process())) as reporter:
        found = run_audit(model, architecture=architecture, out=folder, reporter=reporter, **options)
    if not first_process():
        return
    body = {**result_to_json(found.result), "audit": found.to_json()}
    console = Console()
    console.print(*result_tables(found.result, console.width), audit_table(body["audit"]), sep="\n")
    console.print(f"Written to {folder / f'{NAME}.json'}", highlight=False, soft_wrap=True)
    if json_file is not None:
        with writing(f"the audit to {json_file}"):
            write_json(json_file, body)
