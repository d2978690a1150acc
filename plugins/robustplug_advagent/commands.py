"""robustplug perplexity: how well an agent predicts human dialogues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from robustplug.api import echo


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
