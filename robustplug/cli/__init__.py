"""The command line. Importing it and --help load neither torch nor pydantic nor rich."""

from __future__ import annotations

from typing import Any

import click

from ..errors import Interrupted, RunError
from ..plugin.registry import DuplicateComponent, UnknownComponent, did_you_mean
from ..recipe.errors import RecipeError
from .check import check
from .compare import compare
from .components import components
from .data.describe import describe
from .evaluation.attack import attack
from .evaluation.audit import audit
from .evaluation.evaluate import evaluate
from .models.export import export
from .new_plugin import new_plugin
from .plugins import plugins
from .ranks import first_process
from .recipes import recipes
from .report import report
from .show import show
from .study import study
from .train import train
from .validate import validate


class Cli(click.Group):
    """A group that includes the commands of plugins, and turns known errors into one message."""

    _asked = False

    def _ask_plugins(self) -> None:
        if not self._asked:
            self._asked = True
            from ..plugin.host import host

            host().commands(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the built-in commands and those of plugins."""
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a built-in command, or else that of a plugin."""
        found = super().get_command(ctx, cmd_name)
        if found is None:
            self._ask_plugins()
            found = super().get_command(ctx, cmd_name)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Suggest the closest command if a name is unknown."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = did_you_mean(args[0], self.list_commands(ctx)) if args else None
            if close is None or "Did you mean" in error.message:
                raise
            raise click.UsageError(f'{error.message} Did you mean "{close}"?', ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; known errors end with one message and exit code 2."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            echo_once("interrupted")
            ctx.exit(130)
        except Exception as error:
            code = known_exit_code(error)
            if code is None:
                raise
            echo_once(str(error))
            ctx.exit(code)
        finally:
            echo_warnings()


def echo_once(message: str) -> None:
    """Print an error, but only in the first of several processes."""
    if first_process():
        click.echo(message, err=True)


def known_exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that needs no traceback, or None for a bug."""
    if isinstance(error, RecipeError | UnknownComponent | DuplicateComponent):
        return 2
    if isinstance(error, Interrupted):
        return error.exit_code
    return 2 if isinstance(error, RunError) else None


def echo_warnings() -> None:
    """Print each warning about plugins once, as a yellow line."""
    from ..plugin.host import host

    if host.cache_info().currsize:
        warnings = host().warnings
        while warnings:
            click.secho(warnings.pop(0), fg="yellow", err=True)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="robustplug", prog_name="robustplug")
def main() -> None:
    """Robust training and honest robustness evaluation, where every method is a plugin.

    Start with: robustplug train --recipe cat
    """


for command in (
    train,
    evaluate,
    attack,
    audit,
    compare,
    report,
    export,
    study,
    validate,
    components,
    describe,
    show,
    plugins,
    recipes,
    check,
    new_plugin,
):
    main.add_command(command)
