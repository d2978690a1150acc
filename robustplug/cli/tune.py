"""robustplug tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .echo import echo

if TYPE_CHECKING:
    from ..studies.tuning.kept import Trial


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the tuning.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the result.")
def tune(file: Path, out: Path | None, quiet: bool) -> None:
    """Search a method's options for clean and robust accuracy.

    FILE is a TOML file with a base recipe, the options to search, and a budget of passes or minutes.

    Optuna proposes the trials, which are measured on the validation split; the finalists are attacked by
    AutoAttack on the test split. The same command resumes. Everything is written to tunings/NAME.

    \b
    robustplug tune mine.toml
    """
    from ..report.pages.tuning_page import finalists_table
    from ..report.terminal import Terminal
    from ..run import tune as search

    def done(trial: Trial) -> None:
        if not quiet:
            point = trial.point
            reached = trial.reason or "" if point is None else f"clean {point[0]:.1%}, robust {point[1]:.1%}"
            values = ", ".join(f"{key} = {value}" for key, value in trial.values.items())
            echo(f"trial {trial.number}: {trial.status}, {values}: {reached}".removesuffix(": "))

    tuned = search(file, out=out, done=done)
    console = Terminal()
    console.print(finalists_table(tuned.result))
    console.print(f"Everything is in {tuned.folder}", soft_wrap=True)
