"""Read recipes and suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..plugin.registry import Registry
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .options import Recipe
from .toml.files import check_kind, copy_tables, find_recipe, find_suite, open_tables, parse, read_text
from .toml.lines import line_of
from .toml.overrides import apply_override

if TYPE_CHECKING:
    from .suite import Suite

Converted = TypeVar("Converted")


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
    check_kind(data, "recipe", path)
    return finish(data, overrides, path, lines, recipe_converter(registry, starts))


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
    return finish(copy_tables(mapping), overrides, "recipe", dict, recipe_converter(registry, starts))


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
        check_kind(data, "suite", path)

    def convert(table: Mapping[str, Any]) -> tuple[Suite | None, list[Finding]]:
        from .convert import convert_suite

        return convert_suite(table, threat, registry)

    return finish(data, (), path, lines, convert)


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
    table = parse(read_text(stored), str(stored)).get("model")
    if not isinstance(table, Mapping):
        return data, Finding(("model", "from"), f"{stored} says no model", hint)
    own = {key: value for key, value in table.items() if key != "from"}
    return {**data, "model": {**own, **model}}, None


def finish(
    data: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: Callable[[], Mapping[KeyPath, int]],
    convert: Callable[[Mapping[str, Any]], tuple[Converted | None, list[Finding]]],
) -> Converted:
    """Convert tables, or say all that is wrong with them.

    Args:
        data: the tables; overrides are written into them.
        overrides: "key=value" each.
        source: what they are of, for the errors.
        lines: finds the line of each key.
        convert: returns what the tables mean, or their problems.

    Raises:
        RecipeError: with every problem, each with its line or its override.
    """
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
