"""robustplug compare."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--suite", default="", metavar="NAME", help="Compare the results of evaluate --suite NAME.")
@click.option("--csv", "csv_file", type=_FILE, help="Also write the numbers to this file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Also write the tables to this file.")
@click.option("--html", "html_file", type=_FILE, help="Also write tables and figures to this file.")
@click.pass_context
def compare(
    ctx: click.Context,
    runs: tuple[str, ...],
    suite: str,
    csv_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare runs and studies.

    The tables show accuracies, or the measures that the task is read by, with intervals, the Pareto front,
    and the cost of training. RUN is a run folder, a study folder, the folder of a tuning, of which the
    finalists are compared, or the JSON file of an evaluation. Results on different samples or under different
    attacks are not compared; notes list the differences. Inputs that cannot be read are listed and left out
    (exit code 1; 2 if nothing is left).

    \b
    robustplug compare runs/cat-digits runs/trades-digits
    robustplug compare studies/methods --html methods.html
    """
    from rich.text import Text

    from ..errors import RunError
    from ..report.pages.compared import (
        comparison_csv,
        comparison_markdown,
        comparison_notes,
        comparison_page,
        comparison_sheets,
    )
    from ..report.tables.comparison import compare as compare_runs
    from ..report.tables.sheets import rich_tables
    from ..report.terminal import Terminal
    from ..runs.folder import write_text

    found = compare_runs(runs, suite)
    if not found.groups:
        lines = "\n".join(f"{name} {reason}" for name, reason in found.left_out.items())
        raise RunError(f"there is nothing to compare:\n{lines}")
    console = Terminal()
    for sheet in comparison_sheets(found):
        console.print(*rich_tables(sheet, console.width), sep="\n")
    for note in comparison_notes(found):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if csv_file is not None:
        write_text(csv_file, comparison_csv(found))
    if markdown_file is not None:
        write_text(markdown_file, comparison_markdown(found))
    if html_file is not None:
        write_text(html_file, comparison_page(f"Comparison of {', '.join(runs)}", found))
    if found.left_out:
        ctx.exit(1)
