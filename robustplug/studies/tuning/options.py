"""Tuning files: a base recipe, the options to search, and a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ...plugin.host import registry as installed
from ...plugin.options import Count, Positive, Seed
from ...recipe.convert import Reader
from ...recipe.errors import Finding, KeyPath, RecipeError
from ...recipe.load import finish, recipe_from_mapping
from ...recipe.options import SCHEMA, Checked, Recipe, check_name, check_schema
from ...recipe.study import convert_study
from ...recipe.toml.files import copy_tables, open_tables
from ...recipe.toml.overrides import apply_change, parse_key
from ...recipe.write import recipe_to_mapping
from .space import OptionRange, Range, options_of, place_of, range_of

if TYPE_CHECKING:
    from ...plugin.registry import Registry

# What a trial is measured by must be the same for all of them.
_FIXED = ("schema", "name", "seed", "task", "validate", "evaluate")


@dataclass(frozen=True, kw_only=True)
class TuningOptions:
    """Hold a tuning as it is written.

    Attributes:
        schema: format of the file.
        name: name of the folder; by default the stem of the file.
        base: recipe whose options are searched.
        seed: seed of the search, and of the training of every trial.
        passes: forward and backward passes of a training sample that all trials may take together.
        minutes: minutes of training that all trials may take together, instead of passes.
        finalists: number of trials of the front that are attacked on the test split.
        set: changes of the base recipe, by dotted key.
        option: the options to search; none for all options of the method whose types have a range.
    """

    schema: Annotated[int, Checked(check_schema, {"const": SCHEMA})] = SCHEMA
    name: Annotated[str, Checked(check_name, {})] = "tuning"
    base: str
    seed: Seed = 0
    passes: Positive | None = None
    minutes: Positive | None = None
    finalists: Count = 3
    set: Mapping[str, Any] = field(default_factory=dict)
    option: tuple[OptionRange, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """Describe a tuning that has been checked.

    Attributes:
        name: name of its folder.
        base: recipe whose options are searched, as it is written.
        recipe: that recipe with the changes of all trials, resolved.
        seed: seed of the search.
        passes, minutes: the budget, one of the two.
        finalists: number of trials that are attacked on the test split.
        ranges: what is searched, by dotted key.
    """

    name: str
    base: str
    recipe: Recipe
    seed: int
    passes: float | None
    minutes: float | None
    finalists: int
    ranges: Mapping[str, Range]

    def with_values(self, values: Mapping[str, Any], name: str) -> Recipe:
        """Return the recipe of a trial.

        Args:
            values: values of the searched options, by dotted key.
            name: name of the run.

        Raises:
            RecipeError: the values do not fit each other.
        """
        return with_values(self.recipe, values, name)


def with_values(recipe: Recipe, values: Mapping[str, Any], name: str) -> Recipe:
    """Return a recipe with other values, by dotted key; see `Tuning.with_values`."""
    tables = {**recipe_to_mapping(recipe), "name": name}
    for key, value in values.items():
        apply_change(tables, parse_key(key), value)
    return recipe_from_mapping(tables)


def read_tuning(source: str | Path | Mapping[str, Any], registry: Registry | None = None) -> Tuning:
    """Read a tuning, its base recipe and its ranges, and check all before anything runs.

    Args:
        source: path of the TOML file, or the same tables as a mapping.
        registry: the available components; by default the installed ones.

    Raises:
        RecipeError: there are problems; the error contains all of them, each with its line.
    """
    lines: Callable[[], Mapping[KeyPath, int]] = dict
    if isinstance(source, Mapping):
        data, path, folder = copy_tables(source), "tuning", Path()
    else:
        data, lines, path = open_tables(Path(source))
        folder = Path(path).parent
        data.setdefault("name", Path(path).stem)

    def convert(table: Mapping[str, Any]) -> tuple[Tuning | None, list[Finding]]:
        return _convert(table, folder, installed() if registry is None else registry)

    return finish(data, (), path, lines, convert)


def _convert(
    data: Mapping[str, Any], folder: Path, registry: Registry
) -> tuple[Tuning | None, list[Finding]]:
    reader = Reader(registry)
    options = reader.options(TuningOptions, data, {}, ())
    findings = [*reader.findings, *_budget(data)]
    seed = data.get("seed", 0)
    seeds = {"seeds": [seed]} if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else {}
    one = {key: data[key] for key in ("base", "set") if key in data} | seeds
    study, more = convert_study(one, folder, registry)
    known = {finding.path for finding in findings}
    findings += [finding for finding in more if finding.path not in known]
    if study is None:
        return None, findings
    recipe = study.cells[0].with_seed(study.seeds[0])
    ranges = _ranges(data, recipe, registry, findings)
    if findings or options is None:
        return None, findings
    return Tuning(
        options.name,
        options.base,
        recipe,
        options.seed,
        options.passes,
        options.minutes,
        options.finalists,
        ranges,
    ), []


def _budget(data: Mapping[str, Any]) -> list[Finding]:
    given = [key for key in ("passes", "minutes") if key in data]
    if len(given) == 2:
        return [Finding(("minutes",), "is a second budget beside passes: give one of them")]
    if not given:
        return [Finding((), "there is no budget: write passes = 20000, or minutes = 30")]
    return []


def _ranges(
    data: Mapping[str, Any], recipe: Recipe, registry: Registry, findings: list[Finding]
) -> dict[str, Range]:
    """Return the ranges by key, and add a finding for each that cannot be searched."""
    given, lenient = data.get("option", ()), Reader(registry)
    tables = [table if isinstance(table, Mapping) else {} for table in given] if _listed(given) else []
    written = [lenient.options(OptionRange, table, {}, ("option", n)) for n, table in enumerate(tables)]
    if not tables:
        written = [OptionRange(key=key) for key in options_of(recipe)]
        if not written:
            text = f'is missing, and no option of "{recipe.method.name}" has a range of its own'
            findings.append(
                Finding(("option",), text, 'write [[option]] with key = "method.…", low and high')
            )
    for key, count in Counter(each.key for each in written if each is not None).items():
        if count > 1:
            findings.append(Finding(("option",), f"{key} is searched {count} times: keep one of them"))
    ranges: dict[str, Range] = {}
    for number, each in enumerate(written):
        if each is None:
            continue  # reported already
        place = ("option", number)
        try:
            key = parse_key(each.key)
            if key[0] in _FIXED:
                raise ValueError(f"{each.key} cannot be searched: trials would not be measured alike")
            found = range_of(*place_of(recipe, key), each)
        except ValueError as error:
            findings.append(Finding((*place, "key"), str(error)))
            continue
        if isinstance(found, str):
            findings.append(Finding(place, found))
            continue
        ranges[each.key] = found
        for value in found.ends():
            _check(recipe, each.key, value, place, findings)
    return ranges


def _listed(given: Any) -> bool:
    return isinstance(given, list | tuple)


def _check(recipe: Recipe, key: str, value: Any, place: KeyPath, findings: list[Finding]) -> None:
    """Add the problems of the recipe with one value."""
    try:
        with_values(recipe, {key: value}, recipe.name)
    except RecipeError as error:
        findings += [
            Finding(place, f"{key} = {value!r}: {problem.key} {problem.message}", problem.hint)
            for problem in error.problems
        ]
