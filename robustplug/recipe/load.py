"""Read recipes and suites."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..files.reading import Unreadable, check_depth
from ..plugin.host import registry as installed
from ..plugin.registry import Registry
from .aliases import with_our_names, with_their_names
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .options import Recipe
from .toml.files import check_kind, copy_tables, find_recipe, find_suite, open_tables
from .toml.lines import line_of
from .toml.overrides import apply_override

if TYPE_CHECKING:
    from .suite import Suite

Converted = TypeVar("Converted")

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def read_recipe(
    source: str | Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    starts: bool = True,
) -> Recipe:
    """Read a recipe and check it against what is installed.

    Args:
        source: path, or name of a bundled recipe; see `find_recipe`.
        overrides: "key=value" each, with dotted keys; values as in TOML, or plain strings.
        registry: the available components; by default the installed ones.
        starts: whether the recipe is to be trained, so that the initial weights of its models must exist.

    Raises:
        RecipeError: the recipe has problems; the error contains all of them, each with its line or
            override.
    """
    data, lines, path = open_tables(find_recipe(source))
    check_kind(data, "recipe", path)
    return finish(data, overrides, path, lines, recipe_converter(registry, starts))


def recipe_from_mapping(
    mapping: Mapping[str, Any],
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    starts: bool = True,
) -> Recipe:
    """Build a recipe from tables such as a TOML file contains; see `read_recipe`.

    Raises:
        RecipeError: the recipe has problems; the error contains all of them.
    """
    return finish(copy_tables(mapping), overrides, "recipe", dict, recipe_converter(registry, starts))


def read_suite(
    source: str | Path | Mapping[str, Any], threat: Mapping[str, Any], registry: Registry | None = None
) -> Suite:
    """Read an evaluation suite and check it against what is installed.

    Args:
        source: path, name of a bundled suite, or the same tables as a mapping.
        threat: vicinity of the rows that name none, as a table.
        registry: the available components; by default the installed ones.

    Raises:
        RecipeError: the suite has problems; the error contains all of them, each with its line.
    """
    lines: Callable[[], Mapping[KeyPath, int]] = dict
    if isinstance(source, Mapping):
        data, path = copy_tables(source), "suite"
    else:
        data, lines, path = open_tables(find_suite(source))
        check_kind(data, "suite", path)

    def convert(table: Mapping[str, Any]) -> tuple[Suite | None, list[Finding]]:
        from .convert import convert_suite

        table, renamed, both = with_our_names(table)
        suite, findings = convert_suite(table, threat, registry)
        return (None if both else suite), [*both, *with_their_names(findings, renamed)]

    return finish(data, (), path, lines, convert)


def recipe_converter(
    registry: Registry | None, starts: bool = True, later: Callable[[str], bool] = lambda start: False
) -> Callable[[Mapping[str, Any]], tuple[Recipe | None, list[Finding]]]:
    """Return the function that turns the data of a recipe into a Recipe, or into its problems.

    Args:
        registry: the available components; by default the installed ones.
        starts: whether the initial weights of its models must exist.
        later: whether the weights of a `from` need not exist yet.
    """

    def convert(data: Mapping[str, Any]) -> tuple[Recipe | None, list[Finding]]:
        # Not imported at the top: finding recipes should not import pydantic.
        from .convert import convert_recipe
        from .toml.started import missing_weights

        data, renamed, both = with_our_names(data)
        recipe, findings = convert_recipe(data, registry)
        findings = [*both, *with_their_names(findings, renamed)]
        if recipe is not None and starts:
            findings += missing_weights(recipe, installed() if registry is None else registry, later)
        return (None if both else recipe), findings

    return convert


def finish(
    data: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: Callable[[], Mapping[KeyPath, int]],
    convert: Callable[[Mapping[str, Any]], tuple[Converted | None, list[Finding]]],
) -> Converted:
    """Convert tables, or raise an error with all their problems.

    Args:
        data: the tables; overrides are written into them.
        overrides: "key=value" each.
        source: name of the tables' source, for the errors.
        lines: function that finds the line of each key.
        convert: function that returns the converted tables, or their problems.

    Raises:
        RecipeError: the tables have problems; the error contains all of them, each with its line or
            override.
    """
    problems: list[Problem] = []
    changed: list[tuple[KeyPath, str]] = []
    for override in overrides:
        try:
            changed.append((apply_override(data, override), override))
        except ValueError as error:
            problems.append(Problem("", str(error), override=override))
    try:
        check_depth(data)
    except Unreadable as error:
        raise RecipeError([*problems, Problem("", str(error))], source) from None
    findings = list(unwritable(data))
    result = None
    if not findings:
        result, findings = convert(data)
    if findings:
        known = lines()
        problems += [_located(finding, known, changed) for finding in findings]
    if problems or result is None:
        raise RecipeError(sorted(problems, key=_place), source)
    return result


def located(
    error: RecipeError, source: str | Path | Mapping[str, Any], overrides: Sequence[str]
) -> RecipeError:
    """Return an error that was found when parts of a recipe were built, with its lines or overrides."""
    data, lines, path = (
        (copy_tables(source), dict, "recipe")
        if isinstance(source, Mapping)
        else open_tables(find_recipe(source))
    )
    changed = [(apply_override(data, override), override) for override in overrides]
    known: Mapping[KeyPath, int] = lines()

    def placed(problem: Problem) -> Problem:
        if problem.line is not None or problem.override is not None:
            return problem
        parts = [int(part) if part.isdecimal() else part for part in problem.key.split(".")]
        return _located(Finding(tuple(parts), problem.message, problem.hint), known, changed)

    problems = [placed(problem) for problem in error.problems]
    return error if problems == error.problems else RecipeError(problems, path)


def unwritable(value: Any, path: KeyPath = ()) -> Iterator[Finding]:
    """Find texts that no file can hold: bytes of a command line that are not UTF-8, and the character 0."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, str) and _NO_TEXT.search(value):
        yield Finding(path, f"is no text in UTF-8: {ascii(value)[:80]}")
    for key, item in items:
        if isinstance(key, str) and _NO_TEXT.search(key):
            yield Finding(path, f"has a key that is no text in UTF-8: {ascii(key)[:80]}")
        else:
            yield from unwritable(item, (*path, key))


def _located(
    finding: Finding, lines: Mapping[KeyPath, int], changed: Sequence[tuple[KeyPath, str]]
) -> Problem:
    """Return a finding as a problem, with the override that last wrote its value, or else with its line."""
    key = dotted(finding.path)
    for path, override in reversed(changed):
        if finding.path[: len(path)] == path:
            return Problem(key, finding.message, hint=finding.hint, override=override)
    return Problem(key, finding.message, line_of(lines, finding.path), finding.hint)


def _place(problem: Problem) -> tuple[bool, int]:
    return problem.override is not None, problem.line or 0
