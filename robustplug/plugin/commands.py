"""List commands with their summaries without importing what they are made of."""

from __future__ import annotations

import ast
import importlib.util
import os
from importlib import metadata
from pathlib import Path

from .names import ALLOW_LIST, ENTRY_POINT_GROUP, allowed_plugins

GROUP = "robustplug.commands"
HOOK = b"robustplug_commands"


class Declared:
    """Hold the commands that installed plugins declare as entry points.

    Attributes:
        points: the entry point of each command, by the name of the command.
        hooked: whether a plugin may add commands by the hook, which is known only once it is imported.
    """

    def __init__(self) -> None:
        allowed = allowed_plugins(os.environ.get(ALLOW_LIST))
        installed = metadata.entry_points()
        plugins = [
            point
            for point in installed.select(group=ENTRY_POINT_GROUP)
            if allowed is None or point.name in allowed
        ]
        packages = {point.module.partition(".")[0] for point in plugins}
        self.points = {
            point.name: point
            for point in sorted(installed.select(group=GROUP), key=lambda point: point.value)
            if point.module.partition(".")[0] in packages
        }
        self.hooked = any(_names_the_hook(point.module) for point in plugins)


def summary(module: str, function: str) -> str:
    """Return the first sentence of a function's docstring, read from the source; "" if there is none."""
    try:
        tree = ast.parse(_source(module) or b"")
    except SyntaxError:
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
            return " ".join(paragraph.split())
    return ""


def _names_the_hook(module: str) -> bool:
    source = _source(module)
    # Without a source, only the import can tell.
    return source is None or HOOK in source or b"import *" in source


def _source(module: str) -> bytes | None:
    """Return the source of a module; its package is found, but not imported."""
    package, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin)
        if rest:
            path = path.parent.joinpath(*rest.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return path.read_bytes()
    except (ImportError, ValueError, OSError):
        return None
