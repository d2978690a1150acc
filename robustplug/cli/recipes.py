"""robustplug recipes."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def recipes() -> None:
    """List the bundled recipes, or copy one to change it."""


@recipes.command("list")
def list_recipes() -> None:
    """List the bundled recipes with the first line of each."""
    from ..recipe import bundled_recipes

    known = bundled_recipes()
    width = max(map(len, known), default=0)
    for name, path in known.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        click.echo(
            f"{name:{width}}  {first.removeprefix('#').strip() if first.startswith('#') else ''}".rstrip()
        )


@recipes.command("copy")
@click.argument("name")
@click.argument("target", required=False, type=click.Path(path_type=Path))
def copy_recipe(name: str, target: Path | None) -> None:
    """Copy a bundled recipe to TARGET, by default NAME.toml here; never over a file."""
    from ..recipe import RecipeError, find_recipe
    from ..recipe.errors import Problem

    source = find_recipe(name)
    target = target or Path(source.name)
    if target.is_dir():
        target /= source.name
    try:
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        raise RecipeError([Problem("", "exists already; name another target")], str(target)) from None
    except OSError as error:
        raise RecipeError([Problem("", f"cannot be written: {error.strerror}")], str(target)) from error
    click.echo(f"{target}: change it, then run: robustplug train --recipe {target}")
