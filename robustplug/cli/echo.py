"""Lines that commands print."""

from __future__ import annotations

import click

from ..report.printable import printable


def echo(message: object, err: bool = False, colour: str | None = None) -> None:
    """Print a text as it is; what would control the terminal becomes visible symbols.

    Args:
        message: the text, or what its str returns.
        err: whether to print to stderr.
        colour: colour of the text.
    """
    click.secho(printable(str(message)), err=err, fg=colour)
