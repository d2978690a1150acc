"""robustplug plugins."""

from __future__ import annotations

import click


@click.command()
def plugins() -> None:
    """List the installed plugins and their problems."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..plugin.host import host, registry

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
    Console().print(table)
    host().warnings.clear()  # the table shows them
