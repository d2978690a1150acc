"""robustplug check."""

from __future__ import annotations

import click

from ..plugin.component import KINDS


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
def check(name: str, kind: str | None) -> None:
    """Run the conformance kit on a component.

    The exit code is 1 if a check fails.
    """
    from rich.text import Text

    from ..plugin.host import registry
    from ..plugin.registry import did_you_mean
    from ..report.terminal import Terminal
    from ..testing import run_checks

    known = registry()
    kinds = [k for k in KINDS if kind in (None, k) and name in known.names(k)]
    if not kinds:
        close = did_you_mean(name, [n for k in KINDS for n in known.names(k)])
        hint = f' Did you mean "{close}"?' if close else ""
        what = (kind or "component").replace("_", " ")
        raise click.UsageError(f'No {what} is named "{name}".{hint} List them with: robustplug components')
    console, failed = Terminal(), 0
    for each in kinds:
        console.print(Text.assemble((name, "bold"), f" · {each.replace('_', ' ')}"))
        for outcome in run_checks(name, each):
            failed += not outcome.passed
            style, status = ("green", "passed ") if outcome.passed else ("red", "failed ")
            if outcome.skipped:
                style, status = "yellow", "skipped"
            detail = f": {outcome.detail}" if outcome.detail else ""
            console.print(Text.assemble("  ", (status, style), f" {outcome.check}{detail}"))
    if failed:
        raise SystemExit(1)
