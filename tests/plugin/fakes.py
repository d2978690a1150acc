"""Fake plugins: modules in a folder on sys.path, behind real entry points."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

from robustplug.plugin.host import PluginHost

Point = tuple[EntryPoint, str, str]
Plugin = Callable[[str, str], Point]

HEAD = "from robustplug.api import Component, hookimpl\n"
_numbers = itertools.count()


def losses(*names: str) -> str:
    """Return the source of a plugin that offers losses of these names."""
    body = "".join(f"    yield Component({name!r}, 'nowhere:Thing')\n" for name in names)
    return f"{HEAD}@hookimpl\ndef robustplug_losses():\n{body}"


def write_plugin(folder: Path, name: str, source: str) -> Point:
    """Write a plugin's module, of a name that no other has, and return its entry point."""
    module = f"fake_plugin_{next(_numbers)}"
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return EntryPoint(name, module, "robustplug"), f"dist-{name}", "1.0"


def statuses(host: PluginHost) -> dict[str, str]:
    """Return what became of each entry point."""
    return {report.name: report.status for report in host.reports}
