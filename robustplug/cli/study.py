"""robustplug study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .echo import echo
from .ranks import first_process

if TYPE_CHECKING:
    from ..recipe.study import Study


@click.command()
@click.argument("file")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the study.")
@click.option("--list", "listing", is_flag=True, help="Print the runs and their status; run nothing.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Number of parallel runs, each in its own process.  [default: the number of GPUs, or 1]",
)
@click.option(
    "--observe",
    "observers",
    multiple=True,
    metavar="PLUGIN",
    help="tensorboard, mlflow or wandb; may be repeated.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the result.")
@click.pass_context
def study(
    ctx: click.Context,
    file: str,
    out: Path | None,
    listing: bool,
    processes: int | None,
    observers: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train and evaluate variants of a recipe with several seeds.

    FILE is a TOML file, or the name of a bundled study; see: robustplug recipes list --studies

    Finished runs are not repeated, unfinished ones resume, and a failed run does not stop the others.
    Everything is written to studies/NAME. At the end, the page report/index.html compares the cells.

    \b
    robustplug study mine.toml --list
    robustplug study mine.toml
    """
    if listing:
        from ..recipe.study import read_study

        _list(read_study(file), out)
        return
    from ..report.board import StudyBoard
    from ..report.tables.study import study_tables
    from ..report.terminal import Terminal
    from ..run import study as run_study

    console = Terminal()
    with StudyBoard(Terminal(stderr=True, quiet=quiet or not first_process())) as board:
        studied = run_study(file, out=out, processes=processes, observers=observers, reporter=board)
    console.print(*study_tables(studied.result, console.width), sep="\n")
    console.print(f"Everything is in {studied.folder}", soft_wrap=True)
    if studied.failed:
        ctx.exit(1)


def _list(known: Study, out: Path | None) -> None:
    from ..studies.outcome import look, runs_of
    from ..studies.study import STUDIES

    for run in runs_of(known, STUDIES / known.name if out is None else out):
        outcome = look(known, run)
        echo(f"{run.folder}: {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}")
        for key, value in {**run.cell.changes, "seed": run.seed}.items():
            echo(f"  {key} = {json.dumps(value, ensure_ascii=False)}")
