"""robustplug study."""

from __future__ import annotations

import json
from collections import Counter
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
@click.option("--list", "what", flag_value="list", help="Print the runs and their status; run nothing.")
@click.option("--status", "what", flag_value="status", help="Print how far the runs are; run nothing.")
@click.option("--follow", "what", flag_value="follow", help="Follow what was submitted; start nothing.")
@click.option("--cancel", "what", flag_value="cancel", help="End what was submitted.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Number of parallel runs, each in its own process.  [default: the number of GPUs, or 1]",
)
@click.option("--launcher", metavar="NAME", help="Where the runs take place: local, slurm or ray.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the study: launcher.partition=gpu."
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
    what: str | None,
    processes: int | None,
    launcher: str | None,
    overrides: tuple[str, ...],
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
    robustplug study mine.toml --launcher slurm --set launcher.partition=gpu --set launcher.gpus=1
    robustplug study mine.toml --status
    """
    if what in ("list", "status", "cancel"):
        from ..recipe.study import read_study
        from ..studies.studied import folder_of, study_overrides

        known = read_study(file, study_overrides(launcher, processes, overrides), every_cell=False)
        {"list": _list, "status": _status, "cancel": _cancel}[what](known, folder_of(known, out))
        return
    from ..report.board import StudyBoard
    from ..report.tables.study import study_tables
    from ..report.terminal import Terminal
    from ..run import study as run_study

    console = Terminal()
    with StudyBoard(Terminal(stderr=True, quiet=quiet or not first_process())) as board:
        studied = run_study(
            file,
            out=out,
            processes=processes,
            launcher=launcher,
            overrides=overrides,
            submit=what != "follow",
            observers=observers,
            reporter=board,
        )
    console.print(*study_tables(studied.result, console.width), sep="\n")
    console.print(f"Everything is in {studied.folder}", soft_wrap=True)
    left = [run for cell in studied.result["cells"] for run in cell["runs"] if run["status"] != "finished"]
    if what == "follow" and len(left) > len(studied.failed):
        console.print(
            f"Runs that are not finished, though their jobs have ended: {len(left) - len(studied.failed)}. "
            "The same command without --follow goes on with them"
        )
        ctx.exit(1)
    if studied.failed:
        ctx.exit(1)


def _list(known: Study, folder: Path) -> None:
    from ..studies.seen import glance

    lines = []
    for outcome in glance(known, folder):
        run = outcome.run
        lines.append(f"{run.folder}: {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}")
        for key, value in {**run.cell.changes, "seed": run.seed}.items():
            lines.append(f"  {key} = {json.dumps(value, ensure_ascii=False)}")
    echo("\n".join(lines))


def _status(known: Study, folder: Path) -> None:
    from ..studies.going import standings

    found, problem = standings(known, folder)
    for each in found:
        if each.status not in ("not started", "finished"):
            echo(f"{each.folder}: {each.status}{f' ({each.note})' if each.note else ''}")
    if problem:
        echo(problem)
    counts = Counter(each.status for each in found)
    echo(f"{len(found)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items()))


def _cancel(known: Study, folder: Path) -> None:
    from ..studies.going import going_of

    going = going_of(known, folder)
    going.cancel()
    echo(f"{len(going.numbers)} runs are ended" if going.numbers else "nothing is queued, and nothing runs")
