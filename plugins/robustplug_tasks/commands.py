"""robustplug moves: which columns of a table adversaries move."""

from __future__ import annotations

from pathlib import Path

import click

from robustplug.api import echo


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), help="Number of rows; by default as in the recipe.")
@click.option("--suite", help="Suite of attacks; by default those of the recipe.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
def moves(run: Path, samples: int | None, suite: str | None, device: str) -> None:
    """Show which columns of a table the attacks on a run move.

    For each attack: in how many of the rows that it breaks a column changes, by how much in the column's own
    units, and in which direction.

    Writes figures/moves-*.png in the run folder, which robustplug report shows, and the numbers to its
    result.json, as "moves".
    """
    from robustplug.api import note_in_result, open_evaluation

    from .moves import as_json, draw, found_moves, lines

    if not (run / "result.json").is_file():
        raise click.UsageError(f"{run} is not finished: finish it with robustplug train --resume {run}")
    opened = open_evaluation(run, suite=suite, samples=samples, device=device)
    found = found_moves(opened)
    for line in lines(found):
        echo(line)
    draw(found, run / "figures", opened.name)
    note_in_result(run, "moves", as_json(found))
    echo(f"{run / 'figures'}")
