"""robustplug new-plugin."""

from __future__ import annotations

from pathlib import Path

import click

from ..plugin.names import SCAFFOLDS
from .echo import echo


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(SCAFFOLDS)), default="method", help="What it offers.", show_default=True
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: robustplug-NAME]"
)
def new_plugin(name: str, kind: str, out: Path | None) -> None:
    """Create a plugin package with a component of your own.

    NAME is the name of the component, in kebab-case. The package contains a declaration, the component, a
    card, a recipe, tests with the conformance kit, and a CI file. It installs, trains and passes its tests
    as is.

    \b
    robustplug new-plugin my-method
    robustplug new-plugin my-attack --kind attack
    """
    from ..plugin.scaffold import problems_of, write_plugin

    folder = Path(f"robustplug-{name}") if out is None else out
    problems = problems_of(name, folder)
    if problems:
        raise click.UsageError("\n".join(problems))
    try:
        files = write_plugin(name, folder, kind)
    except OSError as error:
        raise click.UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    for file in files:
        echo(file)
    echo(f'\nNext:\n  cd {folder}\n  pip install -e ".[test]"\n  pytest\n  robustplug train --recipe {name}')
