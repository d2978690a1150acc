"""Studies: TOML files that vary one recipe along axes and over seeds."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

from ..plugin.component import Use, slot_of, use
from ..plugin.options import Seed
from .axes import AxisOptions, Change, VariedAxis, collected, double_writes, read_axis, slug_of
from .clashes import threat_in
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .load import finish, read_suite, recipe_converter
from .options import SCHEMA, Checked, Recipe, check_name, check_schema
from .toml.cells import PREFIX, cells_needed, is_cell
from .toml.files import check_kind, copy_tables, find_recipe, find_study, find_suite, open_tables
from .toml.lines import line_of
from .toml.overrides import apply_change
from .write import use_to_mapping

if TYPE_CHECKING:
    from ..plugin.registry import Registry

Converter: TypeAlias = Callable[[Mapping[str, Any]], tuple[Recipe | None, list[Finding]]]


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Hold a study as it is written.

    Attributes:
        schema: format of the study.
        name: name of the study folder; by default the stem of the study file.
        base: recipe that is varied.
        seeds: seeds that every cell is trained with.
        suite: suite that every cell is also evaluated with.
        audit: whether to audit every cell as well.
        set: changes of all cells, by dotted key.
        axis: axes; the cells are all combinations of their cases.
        launcher: where the runs are carried out.
    """

    schema: Annotated[int, Checked(check_schema, {"const": SCHEMA})] = SCHEMA
    name: Annotated[str, Checked(check_name, {})] = "study"
    base: str
    seeds: tuple[Seed, ...] = (0,)
    suite: str | None = None
    audit: bool = False
    set: Mapping[str, Any] = field(default_factory=dict)
    axis: tuple[AxisOptions, ...] = ()
    launcher: Use = use("local")


@dataclass(frozen=True)
class Axis:
    """Describe one axis of a study.

    Attributes:
        name: name in tables and figures.
        labels: labels of its cases, in order.
        numbers: its values, if all are numbers.
    """

    name: str
    labels: tuple[str, ...]
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Cell:
    """Describe one combination of the axes.

    Attributes:
        name: name for display: "alpha=0.01, a=0.2".
        slug: name for folders: "alpha-0.01_a-0.2"; "" when there is no axis.
        labels: one label of each axis.
        changes: changes of the base recipe, by dotted key.
        source: the resolved recipe of the first seed, or a function that returns it, or its problems.
        needs: slugs of the cells whose runs of the same seed its models start from, by `from` in the recipe.
    """

    name: str
    slug: str
    labels: tuple[str, ...]
    changes: Mapping[str, Any]
    source: Recipe | Callable[[], tuple[Recipe | None, list[Finding]]]
    needs: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """Return the resolved recipe of the first seed.

        Raises:
            RecipeError: it was not checked yet, and has problems.
        """
        if isinstance(self.source, Recipe):
            return self.source
        recipe, findings = self.source()
        if recipe is None or findings:
            problems = [Problem(dotted(item.path), item.message, hint=item.hint) for item in findings]
            raise RecipeError(problems, f"cell {self.name}")
        return recipe

    def with_seed(self, seed: int) -> Recipe:
        """Return the recipe of a seed; its name is the name of its folder."""
        return dataclasses.replace(self.recipe, name=run_name(self.slug, seed), seed=seed)


@dataclass(frozen=True)
class Study:
    """Describe a study whose cells have all been checked.

    Attributes:
        name: name of the study folder.
        base: recipe that is varied, as it is written.
        axes: axes that are varied.
        seeds: seeds that every cell is trained with.
        cells: all combinations, the first axis varying slowest.
        suite: file of the suite that every cell is also evaluated with, or None.
        suite_name: name of that suite; "" for none.
        audit: whether to audit every cell as well.
        launcher: where the runs are carried out, resolved.
        written: the tables of the study, and of its base, as they are written.
    """

    name: str
    base: str
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    suite: Path | None = None
    suite_name: str = ""
    audit: bool = False
    launcher: Use = field(default_factory=lambda: Use("local"))
    written: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})


def read_study(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    every_cell: bool = True,
) -> Study:
    """Read a study and the recipe of each of its cells, and check all against what is installed.

    Args:
        source: path, name of a bundled study, or the same tables as a mapping.
        overrides: changes of the study's tables of the form "key=value", for example
            "launcher.partition=gpu".
        registry: the available components; by default the installed ones.
        every_cell: whether to check all combinations of the axes, or else only as many as show each case of
            each axis once; the recipes of the others are then read when they are asked for.

    Raises:
        RecipeError: the file or its cells have problems; the error contains all of them, each with its
            line.
    """
    lines: Callable[[], Mapping[KeyPath, int]] = dict
    if isinstance(source, Mapping):
        data, path, folder = copy_tables(source), "study", Path()
    else:
        data, lines, path = open_tables(find_study(source))
        check_kind(data, "study", path)
        folder = Path(path).parent

    def convert(table: Mapping[str, Any]) -> tuple[Study | None, list[Finding]]:
        return convert_study(table, folder, registry, every_cell)

    return finish(data, overrides, path, lines, convert)


def convert_study(
    data: Mapping[str, Any], folder: Path, registry: Registry | None = None, every_cell: bool = True
) -> tuple[Study | None, list[Finding]]:
    """Turn the data of a study into a Study whose cells are checked, or into the list of its problems.

    Args:
        data: tables as tomllib returns them.
        folder: folder that paths in the study are relative to.
        registry: the available components; by default the installed ones.
        every_cell: as for `read_study`.
    """
    from ..plugin.host import registry as installed
    from .convert import Reader

    known = installed() if registry is None else registry
    reader = Reader(known)
    options = reader.options(StudyOptions, data, {}, ())
    findings = list(reader.findings)
    # Valid parts are read even if others are invalid, so that all problems are reported at once.
    lenient, given = Reader(known), data.get("axis")
    written = [
        (number, lenient.options(AxisOptions, table, {}, ("axis", number)))
        for number, table in enumerate(given if isinstance(given, list | tuple) else ())
        if isinstance(table, Mapping)
    ]
    axes = [
        axis
        for number, axis in written
        if axis is not None
        for axis in read_axis(axis, ("axis", number), findings)
    ]
    common = collected(data.get("set"), ("set",), findings)
    findings += double_writes(axes, common)
    seeds = _read_seeds(data.get("seeds", [0]), findings)
    base = _read_base(data.get("base"), folder, findings)
    cells: list[Cell] = []
    if base is not None:
        seed = max(0, seeds[0]) if seeds else 0
        cells = _cells(base, axes, common, seed, known, findings, every_cell)
    suite = _read_suite(data.get("suite"), folder, cells, known, findings)
    if findings or options is None:
        return None, findings
    plain = tuple(Axis(axis.name, tuple(case.label for case in axis.cases), axis.numbers) for axis in axes)
    return Study(
        options.name,
        options.base,
        plain,
        tuple(seeds),
        tuple(cells),
        *suite,
        audit=options.audit,
        launcher=options.launcher,
        written=(data, {} if base is None else base.data),
    ), []


def _read_seeds(given: Any, findings: list[Finding]) -> list[int]:
    """Return the valid seeds; the invalid ones have been reported already."""
    listed = given if isinstance(given, list | tuple) else []
    seeds = [seed for seed in listed if isinstance(seed, int) and not isinstance(seed, bool)]
    if given in ([], ()):
        findings.append(Finding(("seeds",), "is empty", "write seeds = [0], or leave it out"))
    for seed, count in Counter(seeds).items():
        if count > 1:
            findings.append(Finding(("seeds",), f"seed {seed} occurs {count} times"))
    return seeds


class _Base(NamedTuple):
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    path: str


def _read_base(base: Any, folder: Path, findings: list[Finding]) -> _Base | None:
    if not isinstance(base, str):
        return None  # reported already
    try:
        data, lines, path = open_tables(find_recipe(base, folder))
    except RecipeError as error:
        findings += _passed_on(error, ("base",))
        return None
    return _Base(data, lines(), path)


def _passed_on(error: RecipeError, place: KeyPath) -> Iterator[Finding]:
    for problem in error.problems:
        where = error.source if problem.line is None else f"{error.source}:{problem.line}"
        message = f"{where}: {problem.key} {problem.message}".replace(":  ", ": ")
        yield Finding(place, message, problem.hint)


def _cells(
    base: _Base,
    axes: Sequence[VariedAxis],
    common: Sequence[Change],
    seed: int,
    registry: Registry,
    findings: list[Finding],
    every: bool,
) -> list[Cell]:
    """Build the cells; a problem that several cells have is reported once, with the first of them."""
    convert = recipe_converter(registry, later=is_cell)
    cells: list[Cell] = []
    written: list[Sequence[Change]] = []
    # What a cell needs is known from the recipes of all.
    refer = any(PREFIX in repr(said) for said in (base.data, axes, common))
    every = every or refer
    taken: set[str] = set()
    where: dict[tuple[object, ...], tuple[Finding, list[str]]] = {}
    for numbers in itertools.product(*(range(len(axis.cases)) for axis in axes)):
        chosen = [axis.cases[number] for axis, number in zip(axes, numbers, strict=True)]
        labels = tuple(case.label for case in chosen)
        pairs = list(zip((axis.name for axis in axes), labels, strict=True))
        name = ", ".join(f"{axis}={label}" for axis, label in pairs)
        # Whole components are set first: options within them then apply to every choice of component.
        changes = sorted(
            [*common, *(change for case in chosen for change in case.changes)], key=lambda item: len(item.key)
        )
        slug = slug_of(pairs, taken)
        named = {"name": run_name(slug, seed), "seed": seed}
        read = functools.partial(_read_cell, base, changes, named, convert)
        recipe, found = None, list[Finding]()
        if every or sum(number > 0 for number in numbers) <= 1:
            recipe, found = read()
        for finding in found:
            # One finding for each axis: an unknown option is wrong with each of the axis' values.
            same = (finding.path[:2], finding.message, finding.hint)
            where.setdefault(same, (finding, []))[1].append(name)
        if not found:
            said = {dotted(change.key): change.value for change in changes}
            cells.append(Cell(name, slug, labels, said, recipe or read))
            written.append(changes)
    if refer and not where:
        needed, unmet = cells_needed([axis.name for axis in axes], cells)
        for number, problem in unmet:
            finding = _placed(problem, _changed(base.data, written[number])[1], base)
            where.setdefault((number, problem.path), (finding, []))[1].append(cells[number].name)
        cells = [
            dataclasses.replace(cell, needs={start: cells[at].slug for start, at in starts.items()})
            for cell, starts in zip(cells, needed, strict=True)
        ]
    for finding, names in where.values():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        note = f" (in cell {names[0]}{more})" if names[0] else ""
        findings.append(finding._replace(message=finding.message + note))
    return cells


def _read_cell(
    base: _Base, changes: Sequence[Change], more: Mapping[str, Any], convert: Converter
) -> tuple[Recipe | None, list[Finding]]:
    data, changed, found = _changed(base.data, changes)
    recipe, problems = convert({**data, **more})
    found += [_placed(problem, changed, base) for problem in problems]
    return recipe, found


def _changed(
    base: Mapping[str, Any], changes: Iterable[Change]
) -> tuple[dict[str, Any], list[tuple[KeyPath, Change]], list[Finding]]:
    data: dict[str, Any] = copy_tables(base)
    changed, findings = [], []
    for change in changes:
        try:
            changed.append((apply_change(data, change.key, copy_tables(change.value)), change))
        except ValueError as error:
            findings.append(Finding(change.place, str(error)))
    return data, changed, findings


def _placed(problem: Finding, changed: Sequence[tuple[KeyPath, Change]], base: _Base) -> Finding:
    """Return a problem of a cell, placed at the change that last wrote its value, or else at the base."""
    message = f"{dotted(problem.path)} {problem.message}"
    for path, change in reversed(changed):
        if problem.path[: len(path)] == path:
            return Finding(change.place, message, problem.hint)
    line = line_of(base.lines, problem.path)
    return Finding(("base",), f"{base.path}{f':{line}' if line else ''}: {message}", problem.hint)


def run_name(slug: str, seed: int) -> str:
    """Return the name of the run of a cell with a seed, and of its folder."""
    return f"{slug}_seed-{seed}" if slug else f"seed-{seed}"


def _read_suite(
    suite: Any, folder: Path, cells: Sequence[Cell], registry: Registry, findings: list[Finding]
) -> tuple[Path | None, str]:
    """Check a suite under the threat model of every cell."""
    if not isinstance(suite, str):
        return None, ""
    threats = []
    for cell in cells:
        if not isinstance(cell.source, Recipe):
            continue
        asked, own = cell.recipe.evaluate.vicinity, slot_of(cell.recipe.method, "vicinity")
        threat = use_to_mapping(asked or threat_in(own, registry))
        if threat not in threats:
            threats.append(threat)
    path, name = None, ""
    try:
        path = find_suite(suite, folder)
        for threat in threats:
            name = read_suite(path, threat, registry).name
    except RecipeError as error:
        findings += _passed_on(error, ("suite",))
    if name == "audit":
        findings.append(Finding(("suite",), 'is named "audit", like the result of an audit', "rename it"))
    return path, name
