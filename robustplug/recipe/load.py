"""Find recipes and read them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import robustplug

from ..registry import Registry, did_you_mean
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .lines import key_lines, line_of
from .options import Recipe
from .overrides import apply_override


def bundled_recipes() -> dict[str, Path]:
    """List the recipes that come with robustplug, by name."""
    package = Path(robustplug.__file__).parent
    folder = package / "recipes"
    if not folder.is_dir():
        folder = package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """Find a recipe: a path that exists, or else a bundled recipe.

    Bundled recipes are found from any folder, as "cat", "cat.toml" or "recipes/cat.toml".

    Raises:
        RecipeError: there is none.
    """
    text, path = str(name_or_path), Path(name_or_path)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        exists = is_folder = False
    if exists and not is_folder:
        return path
    bundled = bundled_recipes()
    name = path.name.removesuffix(".toml")
    if path.parent in (Path(), Path("recipes")) and name in bundled:
        return bundled[name]
    if is_folder:
        inside = path / "recipe.toml"
        hint = f"to run it again: {inside}" if inside.is_file() else "give the TOML file"
        raise RecipeError([Problem("", "is a folder, not a recipe", hint=hint)], text)
    close = did_you_mean(name, bundled)
    hint = f'did you mean "{close}"? ' if close else ""
    hint += 'List the bundled recipes with "robustplug recipes list"'
    raise RecipeError([Problem("", "no such file, and no bundled recipe of this name", hint=hint)], text)


def read_recipe(
    source: str | Path, overrides: Sequence[str] = (), registry: Registry | None = None
) -> Recipe:
    """Read a recipe and check it against what is installed.

    Args:
        source: path, or name of a bundled recipe; see `find_recipe`.
        overrides: "key=value" each, with dotted keys, values as in TOML or plain strings.
        registry: the components to know; by default those installed.

    Raises:
        RecipeError: with every problem, each with its line or its override.
    """
    path = find_recipe(source)
    text = _text(path)
    data = _parse(text, str(path))
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-") or "unnamed")
    return _finish(data, overrides, str(path), lambda: key_lines(text), registry)


def recipe_from_mapping(
    mapping: Mapping[str, Any], overrides: Sequence[str] = (), registry: Registry | None = None
) -> Recipe:
    """Make a recipe of tables such as a TOML file would hold; see `read_recipe`.

    Raises:
        RecipeError: with every problem.
    """
    return _finish(_copy(mapping), overrides, "recipe", dict, registry)


def _text(path: Path) -> str:
    try:
        # With a signature, as some editors write one.
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        problem = Problem("", "is not UTF-8 text", line, "save the file with encoding UTF-8")
        raise RecipeError([problem], str(path)) from None
    except OSError as error:
        problem = Problem("", f"cannot be read: {error.strerror or error}")
        raise RecipeError([problem], str(path)) from None


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError([Problem("", "is nested too deeply")], source) from None
    except ValueError as error:
        message = str(error)
        place = re.search(r"\(at line (\d+), column \d+\)$", message)
        line = int(place[1]) if place else text.rstrip("\n").count("\n") + 1
        hint = "a string needs quotes, a table header brackets: see https://toml.io"
        raise RecipeError([Problem("", f"is not TOML: {message}", line, hint)], source) from None


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _finish(
    data: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: Callable[[], Mapping[KeyPath, int]],
    registry: Registry | None,
) -> Recipe:
    # Not above: finding recipes should not cost the import of pydantic.
    from .convert import convert_recipe

    problems: list[Problem] = []
    changed: list[tuple[KeyPath, str]] = []
    for override in overrides:
        try:
            changed.append((apply_override(data, override), override))
        except ValueError as error:
            problems.append(Problem("", str(error), override=override))
    recipe, findings = convert_recipe(data, registry)
    if findings:
        known = lines()
        problems += [_located(finding, known, changed) for finding in findings]
    if problems or recipe is None:
        raise RecipeError(sorted(problems, key=_place), source)
    return recipe


def _located(
    finding: Finding, lines: Mapping[KeyPath, int], changed: Sequence[tuple[KeyPath, str]]
) -> Problem:
    """Give a finding the override that last wrote its value, or else its line."""
    key = dotted(finding.path)
    for path, override in reversed(changed):
        if finding.path[: len(path)] == path:
            return Problem(key, finding.message, hint=finding.hint, override=override)
    return Problem(key, finding.message, line_of(lines, finding.path), finding.hint)


def _place(problem: Problem) -> tuple[bool, int]:
    return problem.override is not None, problem.line or 0
