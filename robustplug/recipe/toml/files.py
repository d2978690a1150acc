"""Find recipes, suites and studies, and read their tables."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...files.reading import DEEPEST, Unreadable, check_depth, is_folder, read_bytes
from ...plugin.registry import did_you_mean
from ..errors import KeyPath, Problem, RecipeError
from .lines import key_lines, long_key
from .plugins import plugin_files

PACKAGE = Path(__file__).parents[2]
# The largest bundled file has 5 KiB.
_LARGEST, _ENTRIES = 2**20, 100_000
_SIGNS = {"base": "study", "row": "suite", "task": "recipe", "method": "recipe"}
_USES = {
    "recipe": "robustplug train --recipe {}",
    "suite": "robustplug evaluate RUN --suite {}",
    "study": "robustplug study {}",
}


def bundled_recipes() -> dict[str, Path]:
    """List the recipes that are bundled with robustplug, by name."""
    return _bundled("")


def bundled_suites() -> dict[str, Path]:
    """List the evaluation suites that are bundled with robustplug, by name."""
    return _bundled("suites")


def bundled_studies() -> dict[str, Path]:
    """List the studies that are bundled with robustplug, by name."""
    return _bundled("studies")


def _bundled(inside: str) -> dict[str, Path]:
    folder = PACKAGE / "recipes"
    if not folder.is_dir():
        folder = PACKAGE.parent / "recipes"
    return {path.stem: path for path in sorted((folder / inside).glob("*.toml"))}


def of_plugins(what: str) -> dict[str, tuple[str, Path]]:
    """List what installed plugins bring, by name: the plugin and the file; see `plugin_files`.

    Args:
        what: "recipe", "suite" or "study".
    """
    return plugin_files(_FOLDERS[what], _bundled(_FOLDERS[what]))


def installed(what: str) -> dict[str, Path]:
    """List the recipes, suites or studies of robustplug and of all plugins, by name; see `of_plugins`."""
    return _bundled(_FOLDERS[what]) | {name: path for name, (_, path) in of_plugins(what).items()}


def find_recipe(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """Find a recipe: a path that exists, or else one of robustplug or of a plugin, by name.

    These are found from any folder, as "cat", "cat.toml" or "recipes/cat.toml".

    Args:
        name_or_path: name or path of the recipe.
        folder: folder that a path is relative to.

    Raises:
        RecipeError: the recipe does not exist.
    """
    return _find(name_or_path, "recipe", Path("recipes"), folder)


def find_suite(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """Find an evaluation suite: a path that exists, or else one by name; see `find_recipe`.

    Raises:
        RecipeError: the suite does not exist.
    """
    return _find(name_or_path, "suite", Path("recipes/suites"), folder)


def find_study(name_or_path: str | Path) -> Path:
    """Find a study: a path that exists, or else one by name; see `find_recipe`.

    Raises:
        RecipeError: the study does not exist.
    """
    return _find(name_or_path, "study", Path("recipes/studies"), Path())


_FOLDERS = {"recipe": "", "suite": "suites", "study": "studies"}
_LISTED = {"recipe": "", "suite": " --suites", "study": " --studies"}


def _find(name_or_path: str | Path, what: str, home: Path, folder: Path) -> Path:
    text, path = str(name_or_path), folder / name_or_path
    if os.path.exists(path) and not is_folder(path):  # noqa: PTH110, which takes names that are too long
        return path
    name = path.name.removesuffix(".toml")
    known = _bundled(_FOLDERS[what])
    if name not in known:
        known = installed(what)
    if Path(name_or_path).parent in (Path(), home) and name in known:
        return known[name]
    if is_folder(path):
        inside = path / "recipe.toml"
        again = what == "recipe" and inside.is_file()
        hint = f"to run it again: {inside}" if again else "give the TOML file"
        raise RecipeError([Problem("", f"is a folder, not a {what}", hint=hint)], text)
    close = did_you_mean(name, known)
    hint = f'did you mean "{close}"? ' if close else ""
    hint += f'List the bundled ones with "robustplug recipes list{_LISTED[what]}"'
    raise RecipeError([Problem("", f"no such file, and no bundled {what} of this name", hint=hint)], text)


def check_kind(data: Mapping[str, Any], wanted: str, path: str) -> None:
    """Refuse a file of another kind (recipe, suite or study), instead of listing every missing key."""
    kinds = {kind for key, kind in _SIGNS.items() if key in data}
    if len(kinds) == 1 and wanted not in kinds:
        kind = kinds.pop()
        hint = f"use it with: {_USES[kind].format(path)}"
        raise RecipeError([Problem("", f"is a {kind}, not a {wanted}", hint=hint)], path)


def open_tables(path: Path) -> tuple[dict[str, Any], Callable[[], Mapping[KeyPath, int]], str]:
    """Read a TOML file; return its tables, a function that finds its lines, and its path.

    Tables without a name get the name of the file.

    Raises:
        RecipeError: the file cannot be read, or is not TOML.
    """
    text = read_text(path)
    data = parse(text, str(path))
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-") or "unnamed")
    return data, lambda: key_lines(text), str(path)


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        RecipeError: the file cannot be read, or is not UTF-8.
    """
    try:
        data = read_bytes(path, _LARGEST)
    except (OSError, Unreadable) as error:
        why = str(error) if isinstance(error, Unreadable) else f"cannot be read: {error.strerror or error}"
        raise RecipeError([Problem("", why)], str(path)) from None
    try:
        # utf-8-sig: some editors write a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problem = Problem("", "is not UTF-8 text", line, "save the file with encoding UTF-8")
        raise RecipeError([problem], str(path)) from None


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        RecipeError: the text is not TOML; the problem contains the line.
    """
    if (at := long_key(text)) is not None:
        line = text.count("\n", 0, at) + 1
        raise RecipeError([Problem("", "has a key of more than 64 parts", line)], source)
    try:
        tree = tomllib.loads(text)
        check_depth(tree)
    except (RecursionError, Unreadable):
        raise RecipeError([Problem("", "is nested too deeply")], source) from None
    except ValueError as error:
        message = str(error)
        place = re.search(r"\(at line (\d+), column \d+\)$", message)
        line = int(place[1]) if place else text.rstrip("\n").count("\n") + 1
        hint = "a string needs quotes, a table header brackets: see https://toml.io"
        raise RecipeError([Problem("", f"is not TOML: {message}", line, hint)], source) from None
    return tree


def copy_tables(value: Any) -> Any:
    """Return a copy that consists of dicts and lists.

    Raises:
        RecipeError: the tables are nested too deeply, or hold more than 100,000 entries.
    """
    left = _ENTRIES

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        if not isinstance(value, Mapping | list | tuple):
            return value
        left -= len(value)
        if depth > DEEPEST or left < 0:
            why = f"holds more than {_ENTRIES} entries" if left < 0 else "is nested too deeply"
            raise RecipeError([Problem("", why)], "recipe")
        if isinstance(value, Mapping):
            return {key: copied(item, depth + 1) for key, item in value.items()}
        return [copied(item, depth + 1) for item in value]

    return copied(value, 0)
