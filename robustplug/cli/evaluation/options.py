"""Options of all commands that open a model, and of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ranks import first_process

if TYPE_CHECKING:
    from ...core.types import Result


class Finite(click.FloatRange):
    """A range of numbers without "nan" and "inf", of which nothing follows."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a text, and refuse what is no finite number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number", param, ctx)
        return found


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> list[float] | None:
    from ...plugin.options import parse_fraction

    if text is None:
        return None
    try:
        return [float(str(parse_fraction(part))) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{error}; write a number for each channel: 0.49,0.48,0.45") from None


_MODEL_OPTIONS = (
    click.option("--task", metavar="NAME", help="Task with the data, if MODEL is not a run folder."),
    click.option("--model", "architecture", metavar="NAME", help="Model component for a state dict."),
    click.option("--weights", metavar="NAME|FILE", help="Weights of a model by name, such as DEFAULT."),
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
_SHARING_OPTIONS = (
    click.option(
        "--processes", type=click.IntRange(min=1), help="Number of processes or jobs that share the samples."
    ),
    click.option("--launcher", metavar="NAME", help="Where they take place: local, slurm or ray."),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for opening a model and writing its result."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


def sharing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for sharing an evaluation among processes or jobs."""
    for option in reversed(_SHARING_OPTIONS):
        command = option(command)
    return command


def evaluate_and_show(
    model: str, out: Path | None, json_file: Path | None, quiet: bool, name: str = "", **options: Any
) -> Result | None:
    """Evaluate a model, print its tables, and write its result; see `robustplug.evaluate`.

    Args:
        model: run folder, file or name of a model.
        out: folder of the result; None for that of the model.
        json_file: a further file of the result; None for none.
        quiet: whether to print the result alone.
        name: name of the result; "" for that of the suite.
        options: other arguments of `robustplug.evaluate`.

    Returns:
        The result; None in all processes but the first.

    Raises:
        RunError: no row states a number, after the result is written; or as `robustplug.evaluate` does.
    """
    from ...report.console import RichReporter
    from ...report.tables.results import result_tables
    from ...report.terminal import Terminal
    from ...run import evaluate
    from ...runs.result_file import result_to_json, write_result

    folder = result_folder(model, out)
    with RichReporter(Terminal(stderr=True, quiet=quiet or not first_process())) as reporter:
        result = evaluate(model, name=name, out=folder, reporter=reporter, **options)
    if not first_process():
        return None
    console = Terminal()
    console.print(*result_tables(result, console.width), sep="\n")
    written = folder / f"{result.meta['file']}.json"
    console.print(f"Written to {written}", soft_wrap=True)
    if json_file is not None:
        write_result(json_file, result_to_json(result))
    refuse_empty(result)
    return result


def refuse_empty(result: Result) -> None:
    """Refuse a result of which no attack states a number, so that a script does not take it for one.

    Raises:
        RunError: every row but the clean one was skipped or is invalid.
    """
    from ...core.reporting import nothing_stated
    from ...errors import RunError

    why = nothing_stated(result)
    if why:
        raise RunError(why)


def result_folder(model: str, out: Path | None) -> Path:
    """Return the folder for results: evaluations/ in the run folder, or in the working directory."""
    from ...files.reading import is_folder

    if out is not None:
        return out
    return Path(model, "evaluations") if is_folder(model) else Path("evaluations", Path(model).stem)
