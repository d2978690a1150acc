"""The axes of a study: the recipe keys that they set, and the values."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..plugin.options import parse_fraction
from .errors import Finding, KeyPath, dotted
from .toml.overrides import parse_key

# Longer folder names are cut: file systems allow 255 bytes, and files in the folder need some.
_LONGEST = 120
# Keys that the study itself sets in each cell, so that no axis may change them.
_RESERVED = {
    "name": "is set in each cell by the study",
    "schema": "is taken from the base recipe",
    "seed": "is varied by seeds = [0, 1, 2]",
}


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """Hold one case of an axis as it is written.

    Attributes:
        label: label in tables, figures and folders.
        set: changes of the recipe by dotted key.
    """

    label: str
    set: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class AxisOptions:
    """Hold an axis as it is written: values of one key, or cases.

    Attributes:
        name: name of the axis; None for the last part of the key.
        key: dotted key that is varied.
        values: values to try.
        labels: labels of the values; empty for the values themselves.
        case: cases, instead of key and values.

    Raises:
        ExceptionGroup: the fields contradict each other; each ValueError starts with the field's name.
    """

    name: str | None = None
    key: str | None = None
    values: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    case: tuple[CaseOptions, ...] = ()

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ExceptionGroup("axis", [ValueError(problem) for problem in problems])

    def _problems(self) -> Iterator[str]:
        if self.case:
            for name in ("key", "values", "labels"):
                if getattr(self, name):
                    yield f"{name} cannot be combined with [[axis.case]]: an axis has one form or the other"
            if not self.name:
                yield 'name is missing: an axis of cases needs one, for example name = "method"'
            return
        if not self.key:
            yield "key is missing: an axis is a key with values, or a name with [[axis.case]]"
        if not self.values:
            yield "values is empty or missing: list the values to try, for example values = [1, 2]"
        if self.labels and len(self.labels) != len(self.values):
            yield f"labels has {len(self.labels)} entries, but values has {len(self.values)}"


class Change(NamedTuple):
    """Hold one change of a recipe, and its place in the study."""

    key: tuple[str, ...]
    value: Any
    place: KeyPath


class Case(NamedTuple):
    """Hold one case of an axis and its changes."""

    label: str
    changes: list[Change]


class VariedAxis(NamedTuple):
    """Hold an axis: its cases, its values if all are numbers, and its place in the study."""

    name: str
    cases: list[Case]
    numbers: tuple[float, ...] | None
    place: KeyPath


def changes_of(table: Mapping[str, Any], place: KeyPath, above: tuple[str, ...] = ()) -> Iterator[Change]:
    """Yield the changes that a `set` table defines.

    Keys may be dotted within quotes or without. A table with `use` replaces the component. A table without
    it sets only its keys; otherwise `train.epochs = 1` without quotes would empty `train`.

    Args:
        table: table as read from TOML.
        place: place of the table in the study.
        above: key that the table belongs to.

    Raises:
        ValueError: a key is not valid.
    """
    for text, value in table.items():
        try:
            key = (*above, *parse_key(text))
        except ValueError:
            raise ValueError(f'{text!r} is not a key: write for example "train.epochs" = 5') from None
        yield from _change(key, value, (*place, text))


def _change(key: tuple[str, ...], value: Any, place: KeyPath) -> Iterator[Change]:
    if value == {}:
        raise ValueError(f"{dotted(key)} is an empty table, which has no effect: leave it out")
    if isinstance(value, Mapping) and "use" not in value:
        yield from changes_of(value, place, key)
    else:
        yield Change(key, value, place)


def collected(table: Any, place: KeyPath, findings: list[Finding]) -> list[Change]:
    """Return the changes of a `set` table; add findings for keys that are invalid or must not be set."""
    try:
        changes = list(changes_of(table, place)) if isinstance(table, Mapping) else []
    except ValueError as error:
        findings.append(Finding(place, str(error)))
        return []
    return _allowed(changes, findings)


def _allowed(changes: Iterable[Change], findings: list[Finding]) -> list[Change]:
    kept = []
    for change in changes:
        why = _RESERVED.get(change.key[0])
        if why is None:
            kept.append(change)
        else:
            findings.append(Finding(change.place, f"{change.key[0]} {why}"))
    return kept


def read_axis(axis: AxisOptions, place: KeyPath, findings: list[Finding]) -> Iterator[VariedAxis]:
    """Yield the axis, unless its key is invalid; add findings for its labels."""
    numbers, name = None, axis.name or ""
    cases: list[Case] = []
    if axis.case:
        for number, case in enumerate(axis.case):
            inside = (*place, "case", number)
            if not case.label:
                findings.append(
                    Finding((*inside, "label"), "is empty: it names the case in tables and folders")
                )
            changes = collected(case.set, (*inside, "set"), findings)
            cases.append(Case(case.label, changes))
        _note_repeated([case.label for case in cases], "label", place, findings)
    else:
        try:
            key = parse_key(str(axis.key))
        except ValueError:
            findings.append(Finding((*place, "key"), f"{axis.key!r} is not a key", 'write "method.beta"'))
            return
        numbers, name = _numbers(axis.values), axis.name or key[-1]
        labels: Sequence[str | None] = axis.labels or [_label(value) for value in axis.values]
        for number, (label, value) in enumerate(zip(labels, axis.values, strict=True)):
            inside = (*place, "values", number)
            if label is None:
                findings.append(Finding(inside, "needs a label", 'write labels = ["…", "…"] for the values'))
            try:
                changes = _allowed(_change(key, value, inside), [] if number else findings)
            except ValueError as error:
                findings.append(Finding(inside, str(error)))
                continue
            cases.append(Case(label or "", changes))
        _note_repeated([label for label in labels if label], "label", place, findings)
    yield VariedAxis(name, cases, numbers, place)


def _label(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return str(value["use"]) if "use" in value else None
    return str(value) if isinstance(value, int | float | str) and str(value) else None


def _numbers(values: Sequence[Any]) -> tuple[float, ...] | None:
    """Return the values as numbers, or None if one of them is not a number; "8/255" is a number."""
    found = []
    for value in values:
        try:
            number = parse_fraction(value)
        except ValueError:
            return None
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        found.append(float(number))
    return tuple(found)


def _note_repeated(labels: Sequence[str], what: str, place: KeyPath, findings: list[Finding]) -> None:
    for label, count in Counter(labels).items():
        if count > 1:
            findings.append(Finding(place, f'{what} "{label}" occurs {count} times: each must be unique'))


def double_writes(axes: Sequence[VariedAxis], common: Sequence[Change]) -> Iterator[Finding]:
    """Find axis names that are not unique, and keys that are written more than once."""
    for name, count in Counter(axis.name for axis in axes).items():
        if count > 1:
            (place,) = [axis.place for axis in axes if axis.name == name][1:2]
            yield Finding(place, f'name "{name}" is used by {count} axes: give each its own')
    writers: dict[tuple[str, ...], str] = {}
    yield from _twice(common, writers, "[set]")
    for axis in axes:
        here: dict[tuple[str, ...], str] = {}
        told: set[tuple[str, ...]] = set()
        for case in axis.cases:
            within: dict[tuple[str, ...], str] = {}
            yield from _twice(case.changes, within, f'case "{case.label}"')
            for change in case.changes:
                for key in _written(change):
                    if key in writers and key not in told:
                        told.add(key)
                        message = f"{dotted(key)} is also written by {writers[key]}: one value would be lost"
                        yield Finding(change.place, message)
                    here[key] = f'axis "{axis.name}"'
        writers |= here


def _twice(changes: Iterable[Change], seen: dict[tuple[str, ...], str], who: str) -> Iterator[Finding]:
    for change in changes:
        for key in _written(change):
            if key in seen:
                yield Finding(change.place, f"{dotted(key)} is written twice by {who}")
            seen[key] = who


def _parts(key: Any) -> tuple[str, ...]:
    try:
        return parse_key(str(key))
    except ValueError:  # the recipe of the cell, which holds it, is refused
        return (str(key),)


def _written(change: Change) -> set[tuple[str, ...]]:
    """Return the keys that a change writes: its own, and those of nested tables."""
    found, todo = {change.key}, [(change.key, change.value)]
    while todo:
        above, value = todo.pop()
        if isinstance(value, Mapping):
            inner = [((*above, *_parts(key)), item) for key, item in value.items()]
            found |= {key for key, _ in inner}
            todo += inner
    return found


def slug_of(pairs: Sequence[tuple[str, str]], taken: set[str]) -> str:
    """Return a folder name for a cell, unique even on case-insensitive file systems."""
    text = "_".join(f"{axis}-{label}" for axis, label in pairs)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")
    if slug.casefold() in taken or len(slug) > _LONGEST or (pairs and not slug):
        # A hash of the labels, not a count: cells that are added later do not change other folders.
        slug = f"{slug[: _LONGEST - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    taken.add(slug.casefold())
    return slug
