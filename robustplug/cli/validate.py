"""robustplug validate."""

from __future__ import annotations

import click

from .echo import echo


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)
@click.option("--resolved", is_flag=True, help="Print the recipe with every option explicit.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of recipes, installed plugins included.")
@click.option("--suite", is_flag=True, help="RECIPE is an evaluation suite.")
def validate(
    recipe: str | None, overrides: tuple[str, ...], resolved: bool, schema: bool, suite: bool
) -> None:
    """Check a recipe and list all its problems.

    With --schema, print the schema for completion in editors.
    """
    if schema:
        import json

        from ..recipe.schema import recipe_schema

        echo(json.dumps(recipe_schema(), indent=2))
        return
    if recipe is None:
        raise click.UsageError("Give a recipe or --schema.")
    if suite:
        from ..recipe.load import read_suite

        rows = read_suite(recipe, {"use": "linf"}).row
        echo(f"{recipe} is valid: {len(rows)} rows")
        return
    from ..recipe.load import read_recipe
    from ..recipe.toml.started import networks_of
    from ..recipe.write import write_recipe
    from ..subjects.assemble import build_part

    read = read_recipe(recipe, overrides)
    if not any(networks_of(read.method)):  # they are built for a task, whose data may be elsewhere
        build_part(read.method, "method", "method")
    build_part(read.schedule, "schedule", "schedule")
    build_part(read.validate.attack, "perturbation", "validate.attack")
    for number, attack in enumerate(read.evaluate.attack):
        build_part(attack, "perturbation", f"evaluate.attack.{number}")
    echo(write_recipe(read) if resolved else f"{recipe} is valid: {read.method.name} on {read.task.name}")
