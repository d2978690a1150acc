"""robustplug describe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ..echo import echo


@click.command()
@click.argument("task", metavar="TASK|RECIPE")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="describe.png",
    show_default=True,
    help="File for samples as a picture.",
)
@click.option("--check", "thorough", is_flag=True, help="Read everything once and list what is wrong.")
def describe(task: str, overrides: tuple[str, ...], out: Path, thorough: bool) -> None:
    """Describe the data of a task: sizes, ranges and classes.

    If the samples are images, some are drawn into --out, a PNG. With --check, everything is read once:
    broken samples, equal samples in two splits, and classes with one sample are listed. If there are any, the
    exit code is 1.

    \b
    robustplug describe digits
    robustplug describe image-folder --set task.root=photos --check
    """
    from ...files.reading import is_file
    from ...plugin.host import registry
    from ...plugin.registry import did_you_mean
    from ...recipe.layers import split_name
    from ...recipe.load import read_recipe, recipe_from_mapping
    from ...recipe.toml.files import installed

    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out {out}: the picture is a PNG; name a file that ends in .png")
    tasks = registry().names("task")
    if split_name(task)[0] in tasks:
        tables = {"name": "describe", "task": {"use": task}, "method": {"use": "erm"}}
        recipe = recipe_from_mapping(tables, overrides, starts=False)
    elif is_file(task) or task in installed("recipe"):
        recipe = read_recipe(task, overrides, starts=False)
    else:
        close = did_you_mean(task, tasks)
        hint = (
            f'Did you mean "{close}"?' if close else "List the tasks with: robustplug components --kind task"
        )
        raise click.UsageError(f'"{task}" is neither a task nor a recipe. {hint}')

    from ...report.figures.contact import contact_sheet
    from ...report.tables.data import data_tables, fault_lines
    from ...report.terminal import Terminal
    from ...subjects.assemble import build_part
    from ...subjects.data.describe import describe as measure
    from ...subjects.data.describe import find_faults

    reference = recipe.task
    if thorough and getattr(reference.options, "broken", None) == "error":
        # All broken samples are listed, not the first ones.
        reference = dataclasses.replace(
            reference, options=dataclasses.replace(reference.options, broken="skip")
        )
    built = build_part(reference, "task", "task")
    found = measure(built)
    console = Terminal()
    console.print(*data_tables(reference.name, found), sep="\n")
    if found.samples:
        contact_sheet(out, f"samples of {reference.name}", found.samples)
        console.print(f"Samples are drawn in {out}", soft_wrap=True)
    if thorough:
        faults = find_faults(built)
        for line in fault_lines(faults):
            echo(line)
        if faults:
            raise SystemExit(1)
