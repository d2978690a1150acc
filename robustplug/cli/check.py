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
    from rich.console import Console
    from rich.markup import escape

    from ..plugin.host import registry
    from ..plugin.registry import did_you_mean
    from ..testing import run_checks

    known = registry()
    kinds = [k for k in KINDS if kind in (None, k) and name in known.names(k)]
    if not kinds:
        close = did_you_mean(name, [n for k in KINDS for n in known.names(k)])
        hint = f' Did you mean "{close}"?' if close else ""
        what = (kind or "component").replace("_", " ")
        raise click.UsageError(f'No {what} is named "{name}".{hint} List them with: robustplug components')
    console, failed = Console(), 0
    for each in kinds:
        console.print(f"[bold]{name}[/] · {each.replace('_', ' ')}")
        for outcome in run_checks(name, each):
            failed += not outcome.passed
            style, status = ("green", "passed ") if outcome.passed else ("red", "failed ")
            if outcome.skipped:
                style, status = "yellow", "skipped"
            detail = f": {escape(outcome.detail)}" if outcome.detail else ""
            console.print(f"  [{style}]{status}[/] {outcome.check}{detail}", highlight=False)
    if failed:
        raise SystemExit(1)
