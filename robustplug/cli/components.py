"""robustplug components."""

from __future__ import annotations

import click

from ..plugin.component import KINDS


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
def components(kind: str | None) -> None:
    """List the installed methods, attacks, tasks, models and so on."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..plugin.host import registry

    known = registry()
    table = Table(box=None, pad_edge=False)
    for name in ("name", "plugin", "summary"):
        table.add_column(name, overflow="fold")
    for each, members in known.by_kind().items():
        if kind in (None, each) and members:
            table.add_row(Text(f"\n{each}", style="bold underline"))
            for member in members:
                table.add_row(
                    Text(member.name, style="bold"), known.owners[each, member.name], Text(member.summary)
                )
    Console().print(table)
