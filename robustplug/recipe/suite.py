"""Evaluation suites: TOML files whose rows are attacks, distribution shifts and sweeps of both."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ..plugin.component import Use, use
from ..plugin.options import Positive
from .errors import Finding, KeyPath
from .options import SCHEMA, Checked, check_name, check_schema


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """Define one row of a suite.

    Attributes:
        label: label in the table; None for the attack's name and its distinctive options.
        attack: the perturbation.
        measurement: what the row measures, in the place of an attack; None for nothing.
        vicinity: the threat model; without `use`, changes to that of the evaluation.
        scale: factor of the threat model's eps.
        shift: distribution shift that is applied before the attack.
        chain: name of the chain; each row of a chain runs on the samples that the rows before it left
            correct. Without a chain, a row runs on all samples that are correct when clean, or on all
            samples when they are shifted.
        transfer: whether to craft the examples on the source models instead of the evaluated one.
        shown: options of attack and shift that the label always states; those of a sweep are added.
        needs: plugin that provides the attack; without it the row is skipped, and the result states why.
    """

    label: str | None = None
    attack: Annotated[Use, "perturbation"] = use("none")
    measurement: Use | None = None
    vicinity: Use | None = None
    scale: Positive = 1.0
    shift: Annotated[Use | None, "vicinity"] = None
    chain: str | None = None
    transfer: bool = False
    shown: tuple[str, ...] = ()
    needs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Hold an evaluation suite, its sweeps already expanded into rows.

    Attributes:
        schema: format of the suite.
        name: name in results.
        summary: one line for listings.
        loss: loss that attacks ascend unless they have a loss of their own; where it is for other labels than
            those of the task, they ascend that of the evaluation.
        row: rows in the order in which they are run.
        adaptive: whether to inspect the model first, and to continue the last chain with the attacks that it
            needs: averages over draws (EOT), stand-ins for parts without a gradient (BPDA), a substitute.

    Raises:
        ValueError: unknown schema or name, or rows of one chain that cannot build on each other.
    """

    schema: Annotated[int, Checked(check_schema, {"const": SCHEMA})] = SCHEMA
    name: Annotated[str, Checked(check_name, {})] = "suite"
    summary: str = ""
    loss: Use = use("ce")
    row: tuple[SuiteRow, ...] = ()
    adaptive: bool = False

    def __post_init__(self) -> None:
        last: dict[str, SuiteRow] = {}
        for row in self.row:
            if row.chain is None:
                continue
            before = last.get(row.chain, row)
            if before.shift != row.shift or not _grows(before.vicinity, row.vicinity):
                raise ValueError(
                    f'chain "{row.chain}" continues with another threat model or shift: samples that one row '
                    "broke must stay broken in the next, so eps may only grow; name another chain"
                )
            last[row.chain] = row


def _grows(before: Use | None, after: Use | None) -> bool:
    if before is None or after is None or before == after:
        return before == after
    if before.name != after.name or not hasattr(before.options, "eps"):
        return False
    same = dataclasses.replace(before.options, eps=after.options.eps) == after.options
    return bool(same and before.options.eps <= after.options.eps)


def spread(rows: Any, threat: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the expanded rows of a suite, each with the number of the row it came from.

    `sweep` contains lists where the row contains values; its rows are all combinations, the first key
    varying slowest. A row's vicinity without `use` changes the threat model.

    Args:
        rows: rows as read from TOML; a row that is not a table is passed on, to be reported.
        threat: the evaluation's vicinity, as a table.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            yield number, row
            continue
        plain = {key: value for key, value in row.items() if key != "sweep"}
        places = list(_leaves(row.get("sweep", {}), ()))
        swept = [str(path[1]) for path, _ in places if len(path) > 1 and path[0] in ("attack", "shift")]
        if swept and isinstance(row.get("shown", []), list):
            plain["shown"] = [*row.get("shown", []), *swept]
        for values in itertools.product(*(choices for _, choices in places)):
            merged: dict[str, Any] = _copied(plain)
            for (path, _), value in zip(places, values, strict=True):
                _put(merged, path, value)
            vicinity = merged.get("vicinity", {})
            if isinstance(vicinity, Mapping) and vicinity.get("use", threat["use"]) == threat["use"]:
                merged["vicinity"] = {**threat, **vicinity}
            yield number, merged


def _leaves(sweep: Any, path: KeyPath) -> Iterator[tuple[KeyPath, list[Any]]]:
    if isinstance(sweep, Mapping):
        for key, value in sweep.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, sweep if isinstance(sweep, list) else [sweep]


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _put(table: dict[str, Any], path: KeyPath, value: Any) -> None:
    for key in path[:-1]:
        inner = table.setdefault(str(key), {})
        if not isinstance(inner, dict):
            table[str(key)] = inner = {}
        table = inner
    table[str(path[-1])] = value


def sweep_findings(rows: Any) -> Iterator[Finding]:
    """Find problems in the sweeps of rows as read from TOML."""
    for number, row in enumerate(rows):
        sweep = row.get("sweep", {}) if isinstance(row, Mapping) else {}
        if not isinstance(sweep, Mapping):
            yield Finding(("row", number, "sweep"), "must be a table", "write sweep.attack.steps = [10, 100]")
            continue
        if sweep and "label" in row:
            place: KeyPath = ("row", number, "label")
            yield Finding(place, "would be the same for every row of the sweep", "leave it out")
        for path, values in _leaves(sweep, ()):
            found: Any = sweep
            for key in path:
                found = found[key]
            if not isinstance(found, list) or not values:
                place = ("row", number, "sweep", *path)
                yield Finding(place, "must be a list of the values to try", "write for example [10, 100]")


def at_its_source(path: KeyPath, origins: list[int], rows: Any) -> KeyPath:
    """Return the place in the file that a key of an expanded row came from."""
    if len(path) < 2 or path[0] != "row" or not isinstance(path[1], int):
        return path
    number, rest = origins[path[1]], path[2:]
    node: Any = rows[number].get("sweep", {}) if isinstance(rows[number], Mapping) else {}
    for key in rest:
        if not isinstance(node, Mapping) or key not in node:
            return ("row", number, *rest)
        node = node[key]
        if not isinstance(node, Mapping):
            return ("row", number, "sweep", *rest)
    return ("row", number, *rest)
