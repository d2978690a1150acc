"""robustplug perplexity and query-curves: how well an agent predicts people, and what attacks on it cost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustplug.api import echo, model_options, result_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustplug.api import AttackResult

CURVES = "query-curves"
# The options that decide how often an attack asks the target.
BUDGETS = ("epochs", "changes")


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="validation")
def perplexity(runs: tuple[Path, ...], split: Any) -> None:
    """Measure how well agents predict the words of human dialogues.

    Each RUN is the run folder of a negotiating agent. The result is also written to its result.json.

    \b
    robustplug perplexity runs/advagent-sv runs/advagent-rl
    """
    from robustplug.api import note_in_result, open_run

    from .agents.agent import Agent
    from .agents.loss import perplexity as measured
    from .dialogues.task import NegotiationTask

    for run in runs:
        opened = open_run(run)
        if not isinstance(opened.model, Agent) or not isinstance(opened.task, NegotiationTask):
            raise click.UsageError(f"the run {run} has no negotiating agent")
        try:
            x, _ = opened.task.dialogues(split)
        except KeyError:
            raise click.UsageError(f"the data of {run} has no {split} dialogues") from None
        found = measured(opened.model, x.to(opened.device))
        note_in_result(run, "perplexity", {"split": split, **found._asdict()})
        echo(
            f"{opened.name}: perplexity {found.value:.3f} ({found.low:.3f}–{found.high:.3f}) "
            f"of {found.words} words in {len(x)} dialogues, {split} split"
        )


@click.command("query-curves")
@click.argument("model")
@click.option("--suite", default="advagent-queries", show_default=True, metavar="NAME|FILE", help="Attacks.")
@click.option("--measure", default="advantage", show_default=True, help="Measure of the task to draw.")
@model_options
def query_curves(
    model: str,
    suite: str,
    measure: str,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw what attacks on an agent gain against queries.

    MODEL is as for evaluate. Rows of the suite that differ in epochs or changes alone are points of one
    line. A query is a turn or a decision that the agent is asked for, also while an adversary is trained, or
    a sentence that a white-box attack scores. The results are written to query-curves.json and figures/.

    \b
    robustplug query-curves runs/advagent-rl
    """
    from robustplug.api import Line, Panel, line_figure, open_evaluation, write_result

    opened = open_evaluation(model, suite=suite, **options)
    with opened.running():
        rows = opened.evaluation.run(opened.split, opened.attacks, opened.batch_size, opened.samples)[1:]
    for row in rows:
        if row.skipped:
            echo(f"skipped: {row.name}: {row.skipped}", err=True)
    lines = curves(rows, measure)
    if not lines:
        raise click.UsageError(f'no row of the suite has the measure "{measure}"')
    folder = result_folder(model, out)
    body = {**opened.description, "measure": measure, "lines": lines}
    for file in (folder / f"{CURVES}.json", *(() if json_file is None else (json_file,))):
        write_result(file, body)
    at = sorted({point["queries"] for line in lines for point in line["points"]})
    drawn = []
    for line in lines:
        known = {point["queries"]: point for point in line["points"]}
        values = [known.get(queries, {"mean": math.nan, "low": math.nan, "high": math.nan}) for queries in at]
        ends = [(value["low"], value["high"]) for value in values]
        drawn.append(Line(line["name"], [value["mean"] for value in values], ends=ends))
        if not quiet:
            for point in line["points"]:
                echo(f"{line['name']}: {measure} {point['mean']:.2f} after {point['queries']:,.1f} queries")
    figure = folder / "figures" / f"{CURVES}.png"
    line_figure(figure, f"Attacks on {opened.name}", at, [Panel("", drawn)], "queries per dialogue", measure)
    echo(f"{folder / CURVES}.json\n{figure}")


def curves(rows: Sequence[AttackResult], measure: str) -> list[dict[str, Any]]:
    """Return a line for each attack: its name, and its points, a measure with its interval after queries.

    Args:
        rows: rows of an evaluation; those that differ in their budgets alone are points of one line.
        measure: name of the measure.
    """
    found: dict[str, list[AttackResult]] = {}
    for row in rows:
        if not row.skipped and measure in row.measures and row.measures[measure].count:
            fixed = {key: value for key, value in row.options.items() if key not in BUDGETS}
            found.setdefault(json.dumps(fixed, sort_keys=True), []).append(row)
    return [
        {
            "name": min((row.name for row in line), key=len).partition(" (")[0],
            "options": json.loads(fixed),
            "points": [
                {
                    "name": row.name,
                    "queries": row.forwards,
                    "prepared": row.prepared,
                    "mean": row.measures[measure].mean,
                    "low": row.measures[measure].low,
                    "high": row.measures[measure].high,
                }
                for row in sorted(line, key=lambda row: row.forwards)
            ],
        }
        for fixed, line in found.items()
    ]
