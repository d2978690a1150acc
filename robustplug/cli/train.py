"""robustplug train."""

from __future__ import annotations

from pathlib import Path

import click

from .evaluation.options import refuse_empty


class _Train(click.Command):
    """Explain --recipe if a recipe is given without it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "extra argument" not in error.message:
                raise
            hint = "give the recipe with --recipe, for example: robustplug train --recipe cat"
            raise click.UsageError(f"{error.message}; {hint}", ctx) from error


@click.command(cls=_Train)
@click.option("--recipe", "-r", help="TOML file, or the name of a bundled recipe.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME]")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Resume a run folder, or the recipe's newest run.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 2**31 - 1),
    metavar="N",
    help="Number of epochs. With --resume, also a finished run is trained on to N.",
)
@click.option(
    "--fit-batch", is_flag=True, help="Train with the largest batch that fits into memory, found by doubling."
)
@click.option(
    "--observe",
    "observers",
    multiple=True,
    metavar="PLUGIN",
    help="tensorboard, mlflow or wandb; may be repeated.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the result.")
def train(
    recipe: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: str | None,
    epochs: int | None,
    fit_batch: bool,
    observers: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train a recipe, then evaluate it on the test split."""
    if recipe is None and resume is None:
        raise click.UsageError("Give a recipe, for example: robustplug train --recipe cat")
    from ..report.console import RichReporter
    from ..report.tables.results import result_tables
    from ..report.terminal import Terminal
    from ..run import train as run_train

    console = Terminal()
    with RichReporter(Terminal(stderr=True, quiet=quiet)) as reporter:
        trained = run_train(
            recipe,
            overrides=overrides,
            out=out,
            resume=False if resume is None else resume or True,
            epochs=epochs,
            fit_batch=fit_batch,
            observers=observers,
            reporter=reporter,
        )
    if trained.main:
        console.print(*result_tables(trained.result, console.width), sep="\n")
        console.print(f"Everything is in {trained.folder}", soft_wrap=True)
        refuse_empty(trained.result)
