"""robustplug components and robustplug plugins: what is installed."""

from __future__ import annotations

import click

from ..plugin.component import KINDS


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
def components(kind: str | None) -> None:
    """List the installed methods, attacks, tasks, models and so on."""
    from rich.table import Table
    from rich.text import Text

    from ..plugin.host import registry
    from ..report.terminal import Terminal

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
    Terminal().print(table)


@click.command()
def plugins() -> None:
    """List the installed plugins and their problems."""
    from rich.table import Table
    from rich.text import Text

    from ..plugin.host import host, registry
    from ..report.terminal import Terminal

    known = registry()
    table = Table(box=None, pad_edge=False)
    for name in ("plugin", "from", "components", "status"):
        table.add_column(name, overflow="fold")
    for report in host().reports:
        problem = report.problem or known.broken.get(report.name, "")
        status = f"failed: {problem}" if problem else report.status
        count = sum(owner == report.name for owner in known.owners.values())
        style = "red" if problem else "dim" if report.status != "loaded" else ""
        cells = (report.name, f"{report.distribution} {report.version}", str(count), status)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    Terminal().print(table)
    host().warnings.clear()  # the table shows them
