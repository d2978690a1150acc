"""The command line. Importing it and --help load neither torch nor pydantic nor rich."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..report.printable import printable
from .echo import echo
from .ranks import first_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..plugin.commands import Declared

DEBUG = "--debug"
# Imported only when the command is used.
MODULES = {
    "attack": "evaluation.attack",
    "audit": "evaluation.audit",
    "check": "check",
    "compare": "compare",
    "components": "listings",
    "describe": "data.describe",
    "evaluate": "evaluation.evaluate",
    "export": "models.export",
    "new-plugin": "new_plugin",
    "plan": "models.plan",
    "plugins": "listings",
    "recipes": "recipes",
    "report": "report",
    "show": "show",
    "study": "study",
    "train": "train",
    "tune": "tune",
    "validate": "validate",
}


class Cli(click.Group):
    """A group that imports a command when it is used, includes those of plugins, and has one error path."""

    @functools.cached_property
    def _declared(self) -> Declared:
        from ..plugin.commands import Declared

        return Declared()

    @functools.cached_property
    def _hooked(self) -> Mapping[str, click.Command]:
        """The commands that plugins add by the hook; only these plugins have to be imported."""
        group = click.Group()
        if self._declared.hooked:
            from ..plugin.host import host

            host().commands(group)
        return group.commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the built-in commands and those of plugins."""
        return sorted({*MODULES, *self._declared.points, *self._hooked})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a built-in command, or else that of a plugin.

        Raises:
            UsageError: the command of a plugin cannot be imported.
        """
        if cmd_name in MODULES:
            found = getattr(import_module(f"{__name__}.{MODULES[cmd_name]}"), cmd_name.replace("-", "_"))
        elif cmd_name in self._declared.points:
            point = self._declared.points[cmd_name]
            try:
                found = point.load()
            except BaseException as error:
                if type(error) is KeyboardInterrupt:
                    raise
                reason = f"{type(error).__name__}: {error}"
                raise click.UsageError(
                    f'the command "{cmd_name}" of {point.module} fails: {reason}'
                ) from error
        else:
            found = self._hooked.get(cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries of all commands, without importing them."""
        from ..plugin.commands import summary

        said = {name: each.get_short_help_str(200) for name, each in self._hooked.items()}
        for name, point in self._declared.points.items():
            said[name] = summary(point.module, point.attr)
        for name, module in MODULES.items():
            said[name] = summary(f"{__name__}.{module}", name.replace("-", "_"))
        with formatter.section("Commands"):
            formatter.write_dl(sorted(said.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Suggest the closest command if a name is unknown."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from ..plugin.registry import did_you_mean

            close = did_you_mean(args[0], self.list_commands(ctx)) if args else None
            if close is None or "Did you mean" in error.message:
                raise
            raise click.UsageError(f'{error.message} Did you mean "{close}"?', ctx) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept --debug after the command, too."""
        own, rest = _before_dashes(args)
        asked = [DEBUG] if DEBUG in own else []
        with plain_usage():
            return super().parse_args(ctx, [*asked, *(arg for arg in own if arg != DEBUG), *rest])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, then print what the plugins warn of."""
        try:
            with plain_usage():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            if first_process():
                click.echo("interrupted", err=True)
            ctx.exit(130)
        finally:
            echo_warnings()

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Run the command line; every error ends with one message and an exit code."""
        given = sys.argv[1:] if args is None else list(args)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # not every terminal has every character
        try:
            return super().main(given, *rest, **more)
        except Exception as error:
            if more.get("standalone_mode") is False:
                raise
            from .failures import end

            sys.exit(end(error, DEBUG in _before_dashes(given)[0]))


def _before_dashes(args: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments where "--" ends the options."""
    at = args.index("--") if "--" in args else len(args)
    return args[:at], args[at:]


@contextlib.contextmanager
def plain_usage() -> Iterator[None]:
    """Keep what the user wrote from controlling the terminal when click prints a wrong use."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable(error.message)  # type: ignore[misc]  # Final since click 8.5
        raise


def echo_warnings() -> None:
    """Print each warning about plugins once, as a yellow line."""
    loaded = sys.modules.get("robustplug.plugin.host")
    if loaded is not None and loaded.host.cache_info().currsize:
        warnings = loaded.host().warnings
        while warnings:
            echo(warnings.pop(0), err=True, colour="yellow")


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="robustplug", prog_name="robustplug")
@click.option(DEBUG, is_flag=True, help="Print the traceback of an error.")
def main(debug: bool) -> None:
    """Robust training and honest robustness evaluation, where every method is a plugin.

    Start with: robustplug train --recipe cat
    """
