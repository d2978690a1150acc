"""robustplug recipes."""

from __future__ import annotations

from pathlib import Path

import click

from .echo import echo


@click.group()
def recipes() -> None:
    """List the bundled recipes, or copy one to change it."""


def _one_of(one: bool, other: bool, *names: str) -> None:
    if one and other:
        raise click.UsageError(f"Give {' or '.join(names)}, not both.")


@recipes.command("list")
@click.option("--suites", is_flag=True, help="List the evaluation suites instead.")
@click.option("--studies", is_flag=True, help="List the studies instead.")
def list_recipes(suites: bool, studies: bool) -> None:
    """List recipes, evaluation suites or studies."""
    from ..recipe.toml.files import installed, of_plugins

    _one_of(suites, studies, "--suites", "--studies")
    what = "suite" if suites else "study" if studies else "recipe"
    known, owners = installed(what), of_plugins(what)
    width = max(map(len, known), default=0)
    for name, path in known.items():
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        says = first.removeprefix("#").strip() if first.startswith("#") else ""
        whose = f" (plugin {owners[name][0]})" if name in owners else ""
        echo(f"{name:{width}}  {says}{whose}".rstrip())


@recipes.command("copy")
@click.argument("name")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--suite", is_flag=True, help="NAME is an evaluation suite.")
@click.option("--study", is_flag=True, help="NAME is a study.")
def copy_recipe(name: str, target: Path | None, suite: bool, study: bool) -> None:
    """Copy a recipe of robustplug or of a plugin.

    TARGET defaults to NAME.toml in the working directory. An existing file is not overwritten.
    """
    from ..recipe.errors import Problem, RecipeError
    from ..recipe.toml.files import find_recipe, find_study, find_suite

    _one_of(suite, study, "--suite", "--study")
    source = find_suite(name) if suite else find_study(name) if study else find_recipe(name)
    target = target or Path(source.name)
    if target.is_dir():
        target /= source.name
    try:
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        raise RecipeError([Problem("", "already exists; choose another target")], str(target)) from None
    except OSError as error:
        raise RecipeError([Problem("", f"cannot be written: {error.strerror}")], str(target)) from error
    use = f"evaluate RUN --suite {target}" if suite else f"study {target}" if study else ""
    use = use or f"train --recipe {target}"
    echo(f"{target}: change it, then run: robustplug {use}")
