"""Find recipes and read them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import robustplug

from ..plugin.registry import Registry, did_you_mean
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .lines import key_lines, line_of
from .options import Recipe
from .overrides import apply_override

if TYPE_CHECKING:
    from .study import Study
    from .suite import Suite

Converted = TypeVar("Converted")
_SIGNS = {"base": "study", "row": "suite", "task": "recipe", "method": "recipe"}
_USES = {
    "recipe": "robustplug train --recipe {}",
    "suite": "robustplug evaluate RUN --suite {}",
    "study": "robustplug study {}",
}


def bundled_recipes() -> dict[str, Path]:
    """List the recipes that come with robustplug, by name."""
    return _bundled("")


def bundled_suites() -> dict[str, Path]:
    """List the evaluation suites that come with robustplug, by name."""
    return _bundled("suites")


def bundled_studies() -> dict[str, Path]:
    """List the studies that come with robustplug, by name."""
    return _bundled("studies")


def _bundled(inside: str) -> dict[str, Path]:
    package = Path(robustplug.__file__).parent
    folder = package / "recipes"
    if not folder.is_dir():
        folder = package.parent / "recipes"
    return {path.stem: path for path in sorted((folder / inside).glob("*.toml"))}


def find_recipe(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """Find a recipe: a path that exists, or else a bundled recipe.

    Bundled recipes are found from any folder, as "cat", "cat.toml" or "recipes/cat.toml".

    Args:
        name_or_path: of the recipe.
        folder: that a path is relative to.

    Raises:
        RecipeError: there is none.
    """
    return _find(name_or_path, bundled_recipes(), "recipe", Path("recipes"), folder)


def find_suite(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """Find an evaluation suite: a path that exists, or else a bundled suite; see `find_recipe`.

    Raises:
        RecipeError: there is none.
    """
    return _find(name_or_path, bundled_suites(), "suite", Path("recipes/suites"), folder)


def find_study(name_or_path: str | Path) -> Path:
    """Find a study: a path that exists, or else a bundled study; see `find_recipe`.

    Raises:
        RecipeError: there is none.
    """
    return _find(name_or_path, bundled_studies(), "study", Path("recipes/studies"), Path())


_LISTED = {"recipe": "", "suite": " --suites", "study": " --studies"}


def _find(name_or_path: str | Path, bundled: Mapping[str, Path], what: str, home: Path, folder: Path) -> Path:
    text, path = str(name_or_path), folder / name_or_path
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        exists = is_folder = False
    if exists and not is_folder:
        return path
    name = path.name.removesuffix(".toml")
    if Path(name_or_path).parent in (Path(), home) and name in bundled:
        return bundled[name]
    if is_folder:
        inside = path / "recipe.toml"
        again = what == "recipe" and inside.is_file()
        hint = f"to run it again: {inside}" if again else "give the TOML file"
        raise RecipeError([Problem("", f"is a folder, not a {what}", hint=hint)], text)
    close = did_you_mean(name, bundled)
    hint = f'did you mean "{close}"? ' if close else ""
    hint += f'List those that are bundled with "robustplug recipes list{_LISTED[what]}"'
    raise RecipeError([Problem("", f"no such file, and no bundled {what} of this name", hint=hint)], text)


def read_recipe(
    source: str | Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    starts: bool = True,
) -> Recipe:
    """Read a recipe and check it against what is installed.

    Args:
        source: path, or name of a bundled recipe; see `find_recipe`.
        overrides: "key=value" each, with dotted keys, values as in TOML or plain strings.
        registry: the components to know; by default those installed.
        starts: it is to be trained, so the weights that its model starts from must be there.

    Raises:
        RecipeError: with every problem, each with its line or its override.
    """
    data, lines, path = open_tables(find_recipe(source))
    _check_kind(data, "recipe", path)
    return _finish(data, overrides, path, lines, recipe_converter(registry, starts))


def _check_kind(data: Mapping[str, Any], wanted: str, path: str) -> None:
    """Refuse a file that is another one of recipe, suite and study, instead of naming all that it lacks."""
    kinds = {kind for key, kind in _SIGNS.items() if key in data}
    if len(kinds) == 1 and wanted not in kinds:
        kind = kinds.pop()
        hint = f"use it with: {_USES[kind].format(path)}"
        raise RecipeError([Problem("", f"is a {kind}, not a {wanted}", hint=hint)], path)


def recipe_from_mapping(
    mapping: Mapping[str, Any],
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    starts: bool = True,
) -> Recipe:
    """Make a recipe of tables such as a TOML file would hold; see `read_recipe`.

    Raises:
        RecipeError: with every problem.
    """
    return _finish(copy_tables(mapping), overrides, "recipe", dict, recipe_converter(registry, starts))


def read_suite(
    source: str | Path | Mapping[str, Any], threat: Mapping[str, Any], registry: Registry | None = None
) -> Suite:
    """Read an evaluation suite and check it against what is installed.

    Args:
        source: path, name of a bundled suite, or the same tables as a mapping.
        threat: the vicinity of rows that name none, as a table.
        registry: the components to know; by default those installed.

    Raises:
        RecipeError: with every problem, each with its line.
    """
    lines: Callable[[], Mapping[KeyPath, int]] = dict
    if isinstance(source, Mapping):
        data, path = copy_tables(source), "suite"
    else:
        data, lines, path = open_tables(find_suite(source))
        _check_kind(data, "suite", path)

    def convert(table: Mapping[str, Any]) -> tuple[Suite | None, list[Finding]]:
        from .convert import convert_suite

        return convert_suite(table, threat, registry)

    return _finish(data, (), path, lines, convert)


def read_study(source: str | Path | Mapping[str, Any], registry: Registry | None = None) -> Study:
    """Read a study and the recipe of each of its cells, and check all against what is installed.

    Args:
        source: path, name of a bundled study, or the same tables as a mapping.
        registry: the components to know; by default those installed.

    Raises:
        RecipeError: with every problem of the file and of the cells, each with its line.
    """
    lines: Callable[[], Mapping[KeyPath, int]] = dict
    if isinstance(source, Mapping):
        data, path, folder = copy_tables(source), "study", Path()
    else:
        data, lines, path = open_tables(find_study(source))
        _check_kind(data, "study", path)
        folder = Path(path).parent

    def convert(table: Mapping[str, Any]) -> tuple[Study | None, list[Finding]]:
        from .study import convert_study

        return convert_study(table, folder, registry)

    return _finish(data, (), path, lines, convert)


def open_tables(path: Path) -> tuple[dict[str, Any], Callable[[], Mapping[KeyPath, int]], str]:
    """Read a TOML file: its tables, named after the file if it gives no name; its lines; its path.

    Raises:
        RecipeError: it cannot be read, or is not TOML.
    """
    text = _text(path)
    data = _parse(text, str(path))
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip(".-") or "unnamed")
    return data, lambda: key_lines(text), str(path)


def recipe_converter(
    registry: Registry | None, starts: bool = True
) -> Callable[[Mapping[str, Any]], tuple[Recipe | None, list[Finding]]]:
    """Return the function that turns the data of a recipe into a Recipe, or into its problems."""

    def convert(data: Mapping[str, Any]) -> tuple[Recipe | None, list[Finding]]:
        # Not at the top: finding recipes should not cost the import of pydantic.
        from .convert import convert_recipe

        data, problem = _with_model(data)
        if problem is not None:
            return None, [problem]
        recipe, findings = convert_recipe(data, registry)
        start = None if recipe is None or recipe.model is None or not starts else recipe.model.start
        if start is not None and not _holds_weights(Path(start)):
            text = f"{start} is no file of weights, and no folder of a finished run"
            return None, [*findings, Finding(("model", "from"), text)]
        return recipe, findings

    return convert


def _holds_weights(path: Path) -> bool:
    return path.is_file() or (path / "model.safetensors").is_file()


def _with_model(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], Finding | None]:
    """Take the model of a run where a recipe says `from` and not which model."""
    model = data.get("model")
    if not isinstance(model, Mapping) or "use" in model or not isinstance(model.get("from"), str):
        return data, None
    stored = Path(model["from"]) / "recipe.toml"
    hint = 'name a run folder, or say which model it is: use = "…"'
    if not stored.is_file():
        return data, Finding(("model", "from"), f"{model['from']} holds no run", hint)
    table = _parse(_text(stored), str(stored)).get("model")
    if not isinstance(table, Mapping):
        return data, Finding(("model", "from"), f"{stored} says no model", hint)
    own = {key: value for key, value in table.items() if key != "from"}
    return {**data, "model": {**own, **model}}, None


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


def copy_tables(value: Any) -> Any:
    """Return a copy that is made of dicts and lists."""
    if isinstance(value, Mapping):
        return {key: copy_tables(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copy_tables(item) for item in value]
    return value


def _finish(
    data: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: Callable[[], Mapping[KeyPath, int]],
    convert: Callable[[Mapping[str, Any]], tuple[Converted | None, list[Finding]]],
) -> Converted:
    problems: list[Problem] = []
    changed: list[tuple[KeyPath, str]] = []
    for override in overrides:
        try:
            changed.append((apply_override(data, override), override))
        except ValueError as error:
            problems.append(Problem("", str(error), override=override))
    result, findings = convert(data)
    if findings:
        known = lines()
        problems += [_located(finding, known, changed) for finding in findings]
    if problems or result is None:
        raise RecipeError(sorted(problems, key=_place), source)
    return result


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
