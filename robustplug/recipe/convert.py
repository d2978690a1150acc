"""Convert the tables of a recipe to frozen option dataclasses, checked against what is installed.

Every problem is collected; none hides another.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..errors import ends_program
from ..files.given import held
from ..plugin.component import Component, Kind, Slot, Use
from ..plugin.culprit import one_line
from ..plugin.host import registry as installed
from ..plugin.registry import DuplicateComponent, Registry, UnknownComponent, did_you_mean
from .clashes import clashes, misfits, model_clashes, strangers, unfit_threat
from .errors import Finding, KeyPath, Problem, RecipeError, dotted
from .layers import ABSENT, inherited_options, layered, split_name, with_defaults_of_task
from .messages import explain, grouped, show, table_hint, table_text
from .options import COMMON, Recipe, as_mapping
from .shape import PREFIX, Shape, shape
from .suite import Suite, at_its_source, spread, sweep_findings
from .toml.overrides import LateVariant
from .toml.started import take_start, with_model_of_run

_DEEPEST = 40


def convert_recipe(
    data: Mapping[str, Any], registry: Registry | None = None
) -> tuple[Recipe | None, list[Finding]]:
    """Turn the data of a recipe into a resolved Recipe, or into the list of its problems.

    Args:
        data: tables as tomllib returns them.
        registry: the available components; by default the installed ones.
    """
    reader = Reader(installed() if registry is None else registry)
    recipe = reader.options(Recipe, with_defaults_of_task(data, reader.registry), {}, ())
    if recipe is not None:
        reader.findings += strangers(recipe, reader.registry)
        reader.findings += misfits(recipe, reader.registry)
        if recipe.model is not None:
            reader.findings += model_clashes(recipe.model, recipe.method, reader.registry)
    return (None if reader.findings else recipe), reader.findings


def convert_suite(
    data: Mapping[str, Any], threat: Mapping[str, Any], registry: Registry | None = None
) -> tuple[Suite | None, list[Finding]]:
    """Turn the data of a suite into a resolved Suite, or into the list of its problems.

    Args:
        data: tables as tomllib returns them.
        threat: vicinity of the rows that name none, as a table.
        registry: the available components; by default the installed ones.
    """
    reader = Reader(installed() if registry is None else registry)
    given = data.get("row", [])
    rows = list(given) if isinstance(given, list | tuple) else []
    found = list(sweep_findings(rows))
    if found:
        return None, found
    pairs = list(spread(rows, threat))
    origins = [origin for origin, _ in pairs]
    spread_out = [_without_missing(row, reader.registry) for _, row in pairs]
    suite = reader.options(Suite, {**data, **({"row": spread_out} if rows else {})}, {}, ())
    for number, row in enumerate(() if suite is None else suite.row):
        if row.vicinity is not None:
            reader.findings += unfit_threat(row.vicinity, ("row", number, "vicinity"), reader.registry)
    findings = [item._replace(path=at_its_source(item.path, origins, rows)) for item in reader.findings]
    return (None if findings else suite), list(dict.fromkeys(findings))


def _without_missing(row: Any, registry: Registry) -> Any:
    """Remove the attack of a row that needs a plugin that is not installed."""
    attack = row.get("attack") if isinstance(row, Mapping) else None
    if not isinstance(attack, Mapping) or not isinstance(row.get("needs"), str):
        return row
    name = str(attack.get("use"))
    if ("perturbation", split_name(name)[0]) in registry.components:
        return row
    return {"label": name, **row, "attack": {"use": "none"}}


def resolve(use: Use, kind: Kind, registry: Registry | None = None) -> Use:
    """Check one reference to a component and fill in its defaults, recursively.

    Args:
        use: name and options; may be resolved already.
        kind: kind of the component.
        registry: the available components; by default the installed ones.

    Returns:
        A reference whose options are an instance of the component's dataclass, ready to build.

    Raises:
        RecipeError: the reference has problems; the error contains all of them.
    """
    reader = Reader(installed() if registry is None else registry)
    result = reader.use(kind, {}, use, ())
    if reader.findings or result is None:
        problems = [Problem(dotted(item.path), item.message, hint=item.hint) for item in reader.findings]
        raise RecipeError(problems, f"{kind} {use.name}")
    return result


class Reader:
    """Convert tables and collect their problems.

    Each method returns None for a table that cannot be converted, and adds a finding.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.findings: list[Finding] = []

    def note(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Add a finding."""
        self.findings.append(Finding(path, message, hint))

    def use(self, kind: Kind, given: Any, default: Use | None, path: KeyPath) -> Use | None:
        """Convert the table of a component, on top of the slot's default if that is the same component."""
        if not isinstance(given, Mapping):
            self.note(path, f"must be a table, not {show(given)}", table_hint(path, given))
            return None
        table = with_model_of_run(given, path, self.note) if kind == "model" else dict(given)
        if table is None:
            return None
        name = table.pop("use", ABSENT if default is None else default.name)
        if name is ABSENT:
            known = ", ".join(self.registry.names(kind)) or "none"
            self.note(path, f'names no {kind}: add use = "…"', f"installed: {known}")
            return None
        if not isinstance(name, str):
            self.note((*path, "use"), f"must be the name of a {kind}, a string, not {show(name)}")
            return None
        name, variant = split_name(name)
        component = self._component(kind, name, (*path, "use"))
        if component is None:
            return None
        try:
            form = shape(component.options)
        except Exception as error:
            owner = self.registry.owners.get((kind, name), "its plugin")
            self.note(path, f'the options of {kind} "{name}" are broken ({error}): report it to {owner}')
            return None
        inherited = dict(inherited_options(default, name))
        late = table.get("variant")
        if isinstance(late, LateVariant):
            if component.variants:
                inherited = dict(layered(ABSENT, inherited, late.below))
            else:
                table = dict(layered(ABSENT, late.below, table))
        if variant:
            self._variant(name, variant, form, table, path)
        if component.variants:
            if "variant" in inherited:
                preset = self._preset(component, inherited.pop("variant"), path)
                inherited = dict(layered(ABSENT, preset, inherited))
            if "variant" in table:
                preset = self._preset(component, table.pop("variant"), path)
                # The recipe's variant overrides the options of the slot's default.
                inherited = dict(layered(ABSENT, inherited, preset))
        own = default if default is not None and split_name(default.name)[0] == name else Use(name)
        start = take_start(table, path, self.note) or own.start if kind == "model" else None
        before = len(self.findings)
        more = self._common(kind, form, table, path) or own.more
        common = () if kind not in COMMON else shape(COMMON[kind]).names
        options = self.options(component.options, table, inherited, path, owner=name, also=common)
        if options is None or len(self.findings) > before:
            return None
        result = Use(name, options, start, more)
        if kind == "method":
            self.findings += [
                item._replace(path=(*path, *item.path)) for item in clashes(result, self.registry)
            ]
        return result

    def _preset(self, component: Component, variant: Any, path: KeyPath) -> Mapping[str, Any]:
        """Return the options that `variant = "…"` stands for."""
        if isinstance(variant, str) and variant in component.variants:
            return component.variants[variant]
        close = did_you_mean(variant, component.variants) if isinstance(variant, str) else None
        known = ", ".join(f'"{name}"' for name in component.variants)
        hint = f'did you mean "{close}"?' if close else None
        self.note((*path, "variant"), f"must be one of {known}, not {show(variant)}", hint)
        return {}

    def _common(self, kind: Kind, form: Shape, table: dict[str, Any], path: KeyPath) -> Any:
        """Take the keys that every component of a kind has out of a table; return None if there are none."""
        names = () if kind not in COMMON else shape(COMMON[kind]).names
        given = {name: table[name] for name in names if name in table}
        for name in given:
            if name not in form.names:
                del table[name]
        return self.options(COMMON[kind], given, {}, path) if given else None

    def _component(self, kind: Kind, name: str, path: KeyPath) -> Component | None:
        try:
            return self.registry.get(kind, name)
        except (UnknownComponent, DuplicateComponent) as error:
            self.note(path, str(error))
            return None

    def _variant(self, name: str, variant: str, form: Shape, table: dict[str, Any], path: KeyPath) -> None:
        """Read `use = "component:NAME"` as the component's option `name`."""
        if "name" not in form.plain_names:
            self.note((*path, "use"), f'"{name}" takes no name after a colon', f'write use = "{name}"')
        elif "name" in table:
            self.note((*path, "name"), f'is also given by use = "{name}:{variant}"', "leave out one of them")
        else:
            table["name"] = variant

    def options(
        self,
        options: type[Any],
        table: Mapping[str, Any],
        inherited: Mapping[str, Any],
        path: KeyPath,
        owner: str = "",
        also: Sequence[str] = (),
    ) -> Any:
        """Convert the table of an options dataclass.

        Args:
            options: the dataclass.
            table: the recipe's table.
            inherited: options of a slot's default; they override the dataclass' own defaults.
            path: key path of the table.
            owner: name of the component that has these options, if any.
            also: other keys of the same table, to name in a hint.
        """
        if len(path) > _DEEPEST:
            self.note(path, "components are nested too deeply")
            return None
        form, before = shape(options), len(self.findings)
        given = {**inherited, **table}
        suspects = set() if form.rest else set(self._unknown_keys((*form.names, *also), given, path, owner))
        values = self._plain(form, table, given, path, suspects)
        defaults = {**form.defaults, **inherited}
        for slot in form.slots.values():
            default, item = defaults.get(slot.name, ABSENT), table.get(slot.name, ABSENT)
            if slot.many or not (default is ABSENT or isinstance(default, Use | None)):
                # An array, or a default that was given as tables, as in a recipe.
                below, default = default, form.defaults.get(slot.name, ABSENT)
                item = layered(default, below, item)
            if default is item is ABSENT and slot.name in suspects:
                continue
            if slot.many and slot.optional and item is None:
                values[slot.name] = None
                continue
            values[slot.name] = self._slot(slot, item, default, path)
        for name, section in form.sections.items():
            rest = as_mapping(defaults[name]) if name in defaults else {}
            values[name] = self._section(section, table.get(name, {}), rest, (*path, name))
        for name, section in form.arrays.items():
            values[name] = self._array(section, table.get(name, defaults.get(name, ABSENT)), (*path, name))
        if form.rest:
            values[form.rest] = self._rest(form, given, path)
        if len(self.findings) > before:
            return None
        try:
            return options(**values)
        except BaseException as error:
            if ends_program(error):
                raise
            for problem in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
                # A message that starts with the name of an option belongs to that option's line.
                first = str(problem).split(maxsplit=1)[:1]
                key = first[0].strip("\"':,") if first else ""
                expected = isinstance(problem, ValueError | TypeError)
                text = str(problem) if expected else f"a bug in these options: {one_line(problem)}"
                self.note((*path, key) if key in given else path, text)
            return None

    def _unknown_keys(
        self, names: Sequence[str], given: Mapping[str, Any], path: KeyPath, owner: str
    ) -> Iterator[str]:
        """Add findings for unknown keys; yield the names that were probably meant."""
        for key in given:
            if key in names:
                continue
            close = did_you_mean(str(key), names)
            known = ", ".join(names) or "none"
            message = f'"{owner}" has no such option' if owner else "there is no such key here"
            self.note((*path, key), message, f'did you mean "{close}"?' if close else f"known: {known}")
            if close:
                yield close

    def _section(self, section: type[Any], given: Any, inherited: Mapping[str, Any], path: KeyPath) -> Any:
        if not isinstance(given, Mapping):
            self.note(path, f"must be a table, not {show(given)}", f"write [{dotted(path)}]")
            return None
        return self.options(section, given, inherited, path)

    def _array(self, section: type[Any], given: Any, path: KeyPath) -> Any:
        if given is ABSENT or not isinstance(given, list | tuple):
            what = "is missing" if given is ABSENT else f"must be an array of tables, not {show(given)}"
            self.note(path, what, f"write [[{dotted(path)}]]")
            return None
        return tuple(
            item if isinstance(item, section) else self._section(section, item, {}, (*path, i))
            for i, item in enumerate(given)
        )

    def _rest(self, form: Shape, given: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        found = {str(key): value for key, value in given.items() if key not in form.names}
        for key, value in found.items():
            self.findings += _foreign(value, (*path, key))
        return found

    def _slot(self, slot: Slot, given: Any, default: Any, path: KeyPath) -> Any:
        path = (*path, slot.name)
        if given is ABSENT and default is ABSENT:
            known = ", ".join(self.registry.names(slot.kind)) or "none"
            self.note(path, f"is missing: name a {slot.kind}", f"{table_text(path, '…')}\ninstalled: {known}")
            return None
        if slot.many:
            return self._slot_of_many(slot, given, path)
        if given is not ABSENT:
            return self.use(slot.kind, given, default if isinstance(default, Use) else None, path)
        if default is None and not slot.optional:
            self.note(path, f"must not be None: this slot needs a {slot.kind}")
        return None if default is None else self.use(slot.kind, {}, default, path)

    def _slot_of_many(self, slot: Slot, given: Any, path: KeyPath) -> Any:
        if not isinstance(given, list | tuple):
            hint = f'write [[{dotted(path)}]] with use = "…" below it, once for each {slot.kind}'
            self.note(path, f"must be an array of tables, not {show(given)}", hint)
            return None
        return tuple(
            self.use(slot.kind, {}, item, (*path, i))
            if isinstance(item, Use)
            else self.use(slot.kind, item, None, (*path, i))
            for i, item in enumerate(given)
        )

    def _plain(
        self,
        form: Shape,
        table: Mapping[str, Any],
        given: Mapping[str, Any],
        path: KeyPath,
        suspects: set[str],
    ) -> dict[str, Any]:
        """Validate the plain values; a missing key that was probably misspelt is reported only once."""
        plain = {name: held(given[name]) for name in form.plain_names if name in given}
        before = len(self.findings)
        for name in plain:
            if name in table:
                self.findings += _foreign(table[name], (*path, name))
        bad = {item.path[len(path)] for item in self.findings[before:]}
        try:
            text = json.dumps({name: value for name, value in plain.items() if name not in bad})
            model = form.plain.model_validate_json(text)
        except (TypeError, ValueError) as error:
            if not isinstance(error, ValidationError):
                self.note(path, f"contains a value that no recipe can contain: {error}")
                return {}
            for place, errors in grouped(error, plain).items():
                if place[:1] and place[0] in bad | (suspects - plain.keys()):
                    continue
                message, hint = explain(errors)
                if (
                    place
                    and place[0] in form.plain_names
                    and place[0] not in table
                    and "missing" not in message
                ):
                    hint = "this is a default, not a value of the recipe"
                self.note((*path, *place), message, hint)
            return {}
        return {name: getattr(model, PREFIX + name) for name in form.plain_names}


def _foreign(value: Any, path: KeyPath) -> Iterator[Finding]:
    """Find values that no option can have: dates, infinities, None."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _foreign(item, (*path, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _foreign(item, (*path, i))
    elif isinstance(value, datetime.date | datetime.time):
        yield Finding(path, "must not be a date or a time", f'for a string, write "{value}" in quotes')
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield Finding(path, "is too large: whole numbers are at most 2⁶³ − 1")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Finding(path, f"must be a finite number, not {value}")
    elif value is None:
        yield Finding(path, "must not be None: recipes have no such value", "leave the key out")
