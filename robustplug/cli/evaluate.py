"""robustplug evaluate."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="evaluate.KEY=VALUE",
    help="Override a key of the run's evaluation; may be repeated.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too."
)
@click.option("--quiet", "-q", is_flag=True, help="Print the result only.")
def evaluate(run: Path, overrides: tuple[str, ...], device: str, json_file: Path | None, quiet: bool) -> None:
    """Evaluate the model of a run folder again.

    For example: robustplug evaluate runs/cat-digits --set evaluate.attack.0.steps=200
    """
    from rich.console import Console

    from ..engine.folder import write_json, writing
    from ..engine.results import result_to_json
    from ..report.console import RichReporter, result_table
    from ..run import evaluate as run_evaluate

    with RichReporter(Console(stderr=True, quiet=quiet)) as reporter:
        result = run_evaluate(run, overrides=overrides, device=device, reporter=reporter)
    Console().print(result_table(result))
    if json_file is not None:
        with writing(f"the result to {json_file}"):
            write_json(json_file, result_to_json(result))
