"""Find the recipes, suites and studies that installed plugins bring, without importing the plugins."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from ...files.reading import is_file
from ...plugin.names import ALLOW_LIST, ENTRY_POINT_GROUP, allowed_plugins


def plugin_files(inside: str, taken: Mapping[str, Path]) -> dict[str, tuple[str, Path]]:
    """List the TOML files in the folder `recipes` of each plugin's package, by name.

    A name that robustplug itself has, or a plugin that comes earlier in the alphabet, is listed as
    "plugin:name".

    Args:
        inside: folder within `recipes`; "" for the recipes themselves.
        taken: the files that come with robustplug, by name.

    Returns:
        The name of the plugin, and the file.
    """
    found: dict[str, tuple[str, Path]] = {}
    for plugin, folder in _folders():
        for path in sorted(filter(is_file, (folder / "recipes" / inside).glob("*.toml"))):
            name = f"{plugin}:{path.stem}" if path.stem in taken or path.stem in found else path.stem
            found[name] = plugin, path
    return found


def _folders() -> Iterator[tuple[str, Path]]:
    """Yield the plugins that may load, in alphabetical order, each with the folder of its package."""
    allowed = allowed_plugins(os.environ.get(ALLOW_LIST))
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    for name, point in sorted(points.items()):
        if allowed is not None and name not in allowed:
            continue
        package, *rest = point.module.split(".")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            continue
        for place in (spec and spec.submodule_search_locations) or ():
            folder = Path(place).joinpath(*rest)
            yield name, folder if folder.is_dir() else folder.parent
