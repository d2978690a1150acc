"""robustplug evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .ranks import first_process


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> list[float] | None:
    from ..plugin.options import parse_fraction

    if text is None:
        return None
    try:
        return [float(str(parse_fraction(part))) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{error}; write a number for each channel: 0.49,0.48,0.45") from None


_MODEL_OPTIONS = (
    click.option("--task", metavar="NAME", help="Task with the data, if MODEL is not a run folder."),
    click.option("--model", "architecture", metavar="NAME", help="Model component for a state dict."),
    click.option("--weights", metavar="NAME|FILE", help="Weights of a torchvision model, such as DEFAULT."),
    click.option(
        "--mean", callback=_numbers, metavar="M,M,M", help="Mean of a normalisation to add in front."
    ),
    click.option("--std", callback=_numbers, metavar="S,S,S", help="Deviation of that normalisation."),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key (for a run folder, evaluate.* only); may be repeated.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
    ),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the result."),
    click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Also write the result to this file.",
    ),
    click.option("--quiet", "-q", is_flag=True, help="Print only the result."),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for opening a model and writing its result."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


def result_folder(model: str, out: Path | None) -> Path:
    """Return the folder for results: evaluations/ in the run folder, or in the working directory."""
    if out is not None:
        return out
    return Path(model, "evaluations") if Path(model).is_dir() else Path("evaluations", Path(model).stem)


@click.command()
@click.argument("model")
@click.option("--suite", metavar="NAME|FILE", help="Rows to run; see: robustplug recipes list --suites")
@click.option("--source", "sources", multiple=True, metavar="RUN", help="Transfer attacks from this run.")
@click.option("--reference", metavar="RUN|alexnet", help="Reference that corruption errors are divided by.")
@model_options
def evaluate(
    model: str,
    suite: str | None,
    sources: tuple[str, ...],
    reference: str | None,
    architecture: str | None,
    out: Path | None,
    json_file: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Evaluate a run folder or a model file under attacks.

    To resume an interrupted evaluation, run the same command again. MODEL is a run folder, a file
    (safetensors, TorchScript, torch.export, ONNX, LightGBM, XGBoost), torchvision:NAME, or a folder that
    the component --model reads.

    \b
    robustplug evaluate runs/cat-digits --suite standard
    robustplug evaluate net.onnx --task digits --suite quick
    """
    from rich.console import Console

    from ..report.console import RichReporter
    from ..report.tables.results import result_tables
    from ..run import evaluate as run_evaluate
    from ..runs.folder import write_json, writing
    from ..runs.result_file import result_to_json

    folder = result_folder(model, out)
    with RichReporter(Console(stderr=True, quiet=quiet or not first_process())) as reporter:
        result = run_evaluate(
            model,
            suite=suite,
            sources=sources,
            reference=reference,
            architecture=architecture,
            out=folder,
            reporter=reporter,
            **options,
        )
    if not first_process():
        return
    console = Console()
    console.print(*result_tables(result, console.width), sep="\n")
    written = folder / f"{result.meta['suite'] or 'evaluation'}.json"
    console.print(f"Written to {written}", highlight=False, soft_wrap=True)
    if json_file is not None:
        with writing(f"the result to {json_file}"):
            write_json(json_file, result_to_json(result))
