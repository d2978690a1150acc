"""robustplug components."""

from __future__ import annotations

import click

from ..component import KINDS


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
def components(kind: str | None) -> None:
    """List what is installed: methods, attacks, tasks, models and the rest."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..registry import registry

    known = registry()
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "name", "from", "summary"):
        table.add_column(name, overflow="fold")
    for each, members in known.by_kind().items():
        if kind in (None, each):
            for member in members:
                owner = known.owners[each, member.name]
                table.add_row(each, Text(member.name, style="bold"), owner, Text(member.summary))
    Console().print(table)
