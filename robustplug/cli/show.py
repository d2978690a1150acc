"""robustplug show."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import click

from ..plugin.component import KINDS, Component, Kind, slots
from ..plugin.names import ENTRY_POINT_GROUP


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option("--card/--no-card", default=True, help="Whether to show the plugin's method card.")
def show(name: str, kind: str | None, card: bool) -> None:
    """Show the options, paper and method card of a component."""
    from rich.markdown import Markdown

    from ..plugin.host import registry
    from ..plugin.registry import did_you_mean
    from ..report.terminal import Terminal

    known = registry()
    found = [(k, known.get(k, name)) for k in KINDS if kind in (None, k) and name in known.names(k)]
    if not found:
        close = did_you_mean(name, [n for k in KINDS for n in known.names(k)])
        hint = f' Did you mean "{close}"?' if close else ""
        raise click.UsageError(f'No component is named "{name}".{hint} List them with: robustplug components')
    console = Terminal()
    for each, component in found:
        _describe(console, each, component, known.owners[each, name])
    owners = dict.fromkeys(known.owners[each, name] for each, _ in found)
    for text in (method_card(owner) for owner in owners if card):
        if text:
            console.print(Markdown(text))


def _describe(console: Any, kind: Kind, component: Component, owner: str) -> None:
    from rich.table import Table
    from rich.text import Text

    # Text, not strings: rich would parse "tuple[int, ...]" as markup.
    console.print(
        Text.assemble((component.name, "bold"), f" · {kind.replace('_', ' ')} of the plugin {owner}")
    )
    console.print(Text(component.summary))
    if component.paper:
        console.print(Text(f"Paper: {component.paper}"))
    table = Table(box=None, pad_edge=False)
    for column in ("option", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    # Base classes document the options that a class inherits.
    documented = [attribute_docs(each.__doc__ or "") for each in reversed(component.options.__mro__)]
    meanings = {name: text for each in documented for name, text in each.items()}
    for item in dataclasses.fields(component.options):
        cells = (option_type(item.type), default_text(component, item), meanings.get(item.name, ""))
        table.add_row(item.name, *(Text(cell) for cell in cells))
    if table.row_count:
        console.print(table)
    for name, options in component.variants.items():
        console.print(Text(f'variant = "{name}" is short for: {_inline(options)}'))
    console.print()


def _inline(value: Any) -> str:
    """Return a value as one line of TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def option_type(annotation: Any) -> str:
    """Return an option's annotation as text; postponed evaluation makes most annotations strings."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"Literal\[([^\]]*)\]", lambda found: found[1].replace("'", '"'), text)
    return re.sub(r"\bUse\b", "component", text)


def default_text(component: Component, item: dataclasses.Field[Any]) -> str:
    """Return an option's default in the notation of a recipe."""
    if item.default is not dataclasses.MISSING:
        value = item.default
    elif item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    else:
        return "required"
    if item.name in slots(component.options) and value is not None and not isinstance(value, tuple):
        options = ", ".join(f"{key} = {option}" for key, option in value.options.items())
        return f"{value.name} ({options})" if options else value.name
    return "" if value is None else str(value)


def attribute_docs(doc: str) -> dict[str, str]:
    """Return the meanings in the "Attributes:" section of a docstring, by name."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    _, _, section = doc.partition("Attributes:")
    for line in section.splitlines():
        text = line.strip()
        head, colon, rest = text.partition(":")
        indent = len(line) - len(line.lstrip())
        if text and indent <= 8 and colon and all(part.strip().isidentifier() for part in head.split(",")):
            names = [part.strip() for part in head.split(",")]
            meanings.update(dict.fromkeys(names, rest.strip()))
        elif text:
            meanings.update({name: f"{meanings[name]} {text}" for name in names})
    return meanings


def method_card(owner: str) -> str | None:
    """Return the README.md beside the module of a plugin, or None."""
    from importlib import metadata, resources

    for point in metadata.entry_points(group=ENTRY_POINT_GROUP, name=owner):
        file = resources.files(point.module) / "README.md"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None
