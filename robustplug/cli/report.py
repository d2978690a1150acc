"""robustplug report."""

from __future__ import annotations

from pathlib import Path

import click

from .echo import echo
from .ranks import first_process


@click.command()
@click.argument("folder", metavar="RUN|STUDY|TUNING", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the page.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Measure accuracy on this many samples, without time limit.",
)
@click.option("--saved", is_flag=True, help="Compute nothing; show what the folder contains.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the path of the page.")
def report(
    folder: Path, out: Path | None, samples: int | None, saved: bool, device: str, quiet: bool
) -> None:
    """Write one HTML page about a run, a study or a tuning.

    The page contains tables, figures, audit, recipe and environment. It needs no network and no other
    files. Accuracy against eps, steps and restarts, the loss around samples and adversarial examples are
    computed if that takes seconds; each part that is left out is listed with the command that adds it.
    The page is report/index.html in the folder. The figures are also in report/figures, as PNG and SVG.

    \b
    robustplug report runs/cat-digits
    robustplug report studies/methods --out methods-report
    """
    from ..report.console import RichReporter
    from ..report.terminal import Terminal
    from ..run import report as write_report

    with RichReporter(Terminal(stderr=True, quiet=quiet or not first_process())) as reporter:
        done = write_report(
            folder, out=out, samples=samples, compute=not saved, device=device, reporter=reporter
        )
    if not quiet:
        for each in done.left_out:
            why = f": {each.why}" if each.why else ""
            echo(f"left out: {each.what}{why}.{f' {each.command}' if each.command else ''}", err=True)
    echo(done.page)
