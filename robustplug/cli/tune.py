"""robustplug tune."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .echo import echo

if TYPE_CHECKING:
    from ..recipe.options import Recipe
    from ..studies.tuning.trial import Trial


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
    from ..core.reporting import Silent
    from ..errors import RunError
    from ..report.pages.run_page import PAGE
    from ..report.pages.tuning_page import finalists_table, tuning_report
    from ..report.terminal import Terminal
    from ..run import audit, evaluate, train
    from ..runs.folder import REPORT, write_atomic, writing
    from ..studies.tuning.options import read_tuning
    from ..studies.tuning.search import TUNINGS, run_tuning
    from ..studies.work import Commands
    from ..subjects.assemble import build_method, build_part

    tuning = read_tuning(file)
    if find_spec("optuna") is None:
        raise RunError('tuning needs Optuna: pip install "robustplug[tune]"')
    folder = TUNINGS / tuning.name if out is None else out
    info = build_part(tuning.recipe.task, "task", "task").info

    def passes_of_epoch(recipe: Recipe) -> float:
        cost: Any = build_method(recipe, info).cost()
        return float(cost.forwards + cost.backwards)

    def done(trial: Trial) -> None:
        if not quiet:
            point = trial.point
            reached = trial.reason or "" if point is None else f"clean {point[0]:.1%}, robust {point[1]:.1%}"
            values = ", ".join(f"{key} = {value}" for key, value in trial.values.items())
            echo(f"trial {trial.number}: {trial.status}, {values}: {reached}".removesuffix(": "))

    commands = Commands(train, evaluate, audit)
    body = run_tuning(tuning, folder, commands, passes_of_epoch, Silent(), done)
    text, target = tuning_report(folder, body), folder / REPORT
    with writing(f"the page in {target}"):
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / PAGE, text.encode())
    console = Terminal()
    console.print(finalists_table(body))
    console.print(f"Everything is in {folder}", soft_wrap=True)
