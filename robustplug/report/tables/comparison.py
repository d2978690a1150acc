"""Compare runs: comparable groups, their values, the best of them, and the differences."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.reporting import headlines
from ...core.types import AttackResult
from .entries import Entry, read_entries
from .statistics import LEVEL, front, mcnemar, share_interval, welch
from .threats import threat_text, unit_images

CLEAN = "clean"


@dataclass(frozen=True)
class Value:
    """Hold the accuracy of one line in one column.

    Attributes:
        mean: mean accuracy over the runs of the line.
        low, high: bounds of its 95 % interval.
        shares: accuracy of each run.
        right: for each run, whether each sample is classified correctly.
        best: whether no other line has a higher mean.
        tied: whether it does not differ significantly from the best.
    """

    mean: float
    low: float
    high: float
    shares: tuple[float, ...]
    right: tuple[tuple[bool, ...], ...] = field(repr=False)
    best: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Column:
    """Hold one row of the evaluations: the same attack on the same samples in every line.

    Attributes:
        name: name of the row.
        threat: threat model of the row; empty for none.
        attacked: whether the row is an attack on samples without distribution shift.
        values: one value per line; None for a line without this row.
    """

    name: str
    threat: Mapping[str, Any]
    attacked: bool
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Cost:
    """Hold the cost of training, as means over the runs of a line.

    Attributes:
        epochs: number of trained epochs.
        forwards, backwards: passes per training sample over all epochs.
        seconds: wall time.
    """

    epochs: float
    forwards: float
    backwards: float
    seconds: float

    @property
    def passes(self) -> float:
        """Return the sum of forwards and backwards."""
        return self.forwards + self.backwards


@dataclass(frozen=True)
class Group:
    """Hold lines that were evaluated on the same samples.

    Attributes:
        setting: what the lines share: task, split, samples.
        entries: the lines.
        columns: the rows that at least two lines have; for a single line, all its rows. None where the task
            shows measures in the place of accuracies.
        robust: worst case of the attacks that all lines share at one threat model; None for none.
        threat: that threat model.
        pareto: for each line, whether it is on the Pareto front of clean and robust accuracy.
        costs: training cost of each line; None if it is unknown or zero passes were counted.
        frugal: for each line, whether it is on the Pareto front of robust accuracy and training passes.
        notes: what was not compared, and why.
        measured: whether the task shows measures in the place of accuracies.
    """

    setting: Mapping[str, Any]
    entries: tuple[Entry, ...]
    columns: tuple[Column, ...]
    robust: Column | None
    threat: Mapping[str, Any]
    pareto: tuple[bool, ...]
    costs: tuple[Cost | None, ...]
    frugal: tuple[bool, ...]
    notes: tuple[str, ...]
    measured: bool = False


@dataclass(frozen=True)
class Comparison:
    """Hold the result of `compare`.

    Attributes:
        groups: groups of comparable lines; several if samples differ.
        left_out: reason for each input that could not be used, by its name.
        suite: suite of the values; "" for the runs' own evaluations.
        unsealed: files that an earlier version wrote without a seal.
    """

    groups: tuple[Group, ...]
    left_out: Mapping[str, str]
    suite: str = ""
    unsealed: tuple[Path, ...] = ()


def compare(paths: Sequence[str | Path], suite: str = "") -> Comparison:
    """Compare run folders, the cells of study folders, finalists of tunings, and JSON files of evaluations.

    Lines are compared only if they were evaluated on the same samples, and columns only if attack and
    threat model are the same. Notes list the differences.

    Args:
        paths: folders and files; the result lists those that cannot be read, and the reasons.
        suite: suite whose results to compare instead of the runs' own evaluations.
    """
    entries, left_out = read_entries(paths, suite)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_canonical(setting_of(entry, entries)), []).append(entry)
    found = (_group(setting_of(members[0], entries), members) for members in groups.values())
    unsealed = dict.fromkeys(path for entry in entries for path in entry.unsealed)
    return Comparison(tuple(found), left_out, suite, tuple(unsealed))


def setting_of(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what must be equal for two lines to be compared.

    The digest of their indices and labels identifies the samples. If an older result of the same task
    has no digest, the options of the task identify them.
    """
    first, task = entry.results[0], entry.meta["task"]
    peers = [other for other in entries if other.meta["task"] == task]
    same = {f"task.{key}": value for key, value in entry.data.items() if key != "use"}
    if all(peer.meta.get("samples_digest") for peer in peers):
        same = {"samples_digest": entry.meta["samples_digest"]}
    return {"task": task, "split": first.split, "samples": first.samples, **same}


def _group(setting: Mapping[str, Any], entries: Sequence[Entry]) -> Group:
    rows = [_rows(entry) for entry in entries]
    columns = []
    measured = any(headlines(result) for entry in entries for result in entry.results)
    keys = () if measured else dict.fromkeys(key for found in rows for key in found)
    for key in keys:
        present = [key in found for found in rows]
        first = next(found[key][0] for found in rows if key in found)
        if sum(present) < min(2, len(entries)):
            continue
        values = [_value(found[key]) if key in found else None for found in rows]
        attacked = bool(first.options) and not first.shift and first.bound == "upper"
        columns.append(Column(first.name, first.threat, attacked, _marked(values)))
    notes = [*_options_that_differ(entries), *_not_compared(entries, rows)]
    robust, threat = _worst_case(columns)
    costs = tuple(_cost(entry) for entry in entries)
    return Group(
        setting,
        tuple(entries),
        tuple(_told_apart(columns, unit_images(entries[0].results[0]))),
        robust,
        threat,
        _pareto(columns, robust, len(entries)),
        costs,
        _frugal(robust, costs),
        tuple(notes),
        measured,
    )


def _rows(entry: Entry) -> dict[str, list[AttackResult]]:
    """Return the rows that all runs of a line have, keyed by what makes them the same attack.

    The result of a row in a chain depends on the rows before it, so its key contains them.
    """
    found: dict[str, list[AttackResult]] = {}
    for result in entry.results:
        before: dict[str, str] = {}
        for row in result.attacks:
            if row.skipped or row.bound == "none":
                continue
            # Only the name contains the surrogate model of a transfer attack.
            own = [row.name, row.options, row.threat, row.shift]
            # A digest, because the rows before the last of a chain would make its key as long as all of them.
            key = hashlib.sha256(f"{before.get(row.chain, '')}{_canonical(own)}".encode()).hexdigest()
            if row.chain:
                before[row.chain] = key
            found.setdefault(key, []).append(row)
    return {key: rows for key, rows in found.items() if len(rows) == len(entry.results)}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _value(rows: Sequence[AttackResult]) -> Value:
    shares = tuple(row.accuracy for row in rows)
    interval = share_interval(shares, len(rows[0].right))
    return Value(statistics.fmean(shares), *interval, shares, tuple(row.right for row in rows))


def differ(one: Value, other: Value) -> bool:
    """Return whether two values differ by more than chance.

    Two single runs are compared by McNemar's exact test on the same samples, several runs on each side
    by Welch's test on their accuracies. One run and several differ if their intervals do not overlap.
    """
    if len(one.shares) == len(other.shares) == 1:
        return mcnemar(one.right[0], other.right[0]) < LEVEL
    if min(len(one.shares), len(other.shares)) > 1:
        return welch(one.shares, other.shares) < LEVEL
    return one.low > other.high or other.low > one.high


def _marked(values: Sequence[Value | None]) -> tuple[Value | None, ...]:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return tuple(values)
    top = max(known, key=lambda value: value.mean)
    return tuple(
        None
        if value is None
        else _with_marks(value, value.mean == top.mean, value.mean != top.mean and not differ(value, top))
        for value in values
    )


def _with_marks(value: Value, best: bool, tied: bool) -> Value:
    return Value(value.mean, value.low, value.high, value.shares, value.right, best, tied)


def _worst_case(columns: Sequence[Column]) -> tuple[Column | None, Mapping[str, Any]]:
    """Return the worst case of the attacks that all lines share, at their most frequent threat model."""
    shared = [column for column in columns if column.attacked and None not in column.values]
    if not shared:
        return None, {}
    counts = Counter(_canonical(column.threat) for column in shared)
    chosen = counts.most_common(1)[0][0]
    members = [column for column in shared if _canonical(column.threat) == chosen]
    values = []
    for line in zip(*(column.values for column in members), strict=True):
        known = [value for value in line if value is not None]
        right = tuple(
            tuple(all(sample) for sample in zip(*(value.right[run] for value in known), strict=True))
            for run in range(len(known[0].right))
        )
        shares = tuple(sum(run) / len(run) for run in right)
        values.append(Value(statistics.fmean(shares), *share_interval(shares, len(right[0])), shares, right))
    name = members[0].name if len(members) == 1 else f"worst case of {len(members)} attacks"
    return Column(name, members[0].threat, True, _marked(values)), members[0].threat


def _told_apart(columns: Sequence[Column], images: bool) -> Iterator[Column]:
    """Make duplicate names unique: append the threat model, and a number if needed."""
    names = Counter(column.name for column in columns)
    seen: Counter[str] = Counter()
    for column in columns:
        name = column.name
        if names[name] > 1:
            name = f"{name} · {threat_text(column.threat, images)}" if column.threat else name
            seen[name] += 1
            name = name if seen[name] == 1 else f"{name} {seen[name]}"
        yield Column(name, column.threat, column.attacked, column.values)


def _options_that_differ(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a note for each task option that differs although labels and indices are the same."""
    known = [entry for entry in entries if entry.data]
    for key in dict.fromkeys(key for entry in known for key in entry.data):
        said = {entry.name: json.dumps(entry.data.get(key)) for entry in known}
        if len({*said.values()}) > 1:
            yield f"task.{key} differs: {'; '.join(f'{value} in {name}' for name, value in said.items())}."
    around = {entry.name: (entry.meta.get("wrapper") or {}).get("use", "none") for entry in entries}
    if len({*around.values()}) > 1:
        said = {name: f"{value} in {name}" for name, value in around.items()}
        yield f"The wrapper around the model under test differs: {'; '.join(said.values())}."


def _not_compared(entries: Sequence[Entry], rows: Sequence[Mapping[str, list[AttackResult]]]) -> list[str]:
    """Return notes on rows that are missing or different in some lines, grouped by reason."""
    said: dict[str, list[str]] = {}
    images = unit_images(entries[0].results[0])
    named: dict[str, dict[str, AttackResult]] = {}
    for found in rows:
        for key, theirs in found.items():
            named.setdefault(theirs[0].name, {}).setdefault(key, theirs[0])
    for key in dict.fromkeys(key for found in rows for key in found):
        having = [entry.name for entry, found in zip(entries, rows, strict=True) if key in found]
        if len(having) == len(entries):
            continue
        row = next(found[key][0] for found in rows if key in found)
        alike = [other for theirs, other in named[row.name].items() if theirs != key]
        where = sorted({_threat(other, images) for other in alike} - {_threat(row, images)})
        others = f"; elsewhere at {' and '.join(where)}" if where else ""
        others = others or ("; elsewhere after other attacks" if alike else "")
        reason = f"only run on {', '.join(having)} at {_threat(row, images)}{others}"
        said.setdefault(reason, []).append(row.name)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}."
        for reason, names in said.items()
    ]


def _threat(row: AttackResult, images: bool) -> str:
    shift = " · ".join(str(value) for value in row.shift.values())
    return threat_text(row.threat, images) if row.threat else shift or "no threat model"


def _cost(entry: Entry) -> Cost | None:
    trained = [result.meta.get("training") or {} for result in entry.results]
    try:
        epochs = [float(one["epochs"]) for one in trained]
        per_epoch = [
            (float(one["forwards_per_sample"]), float(one["backwards_per_sample"])) for one in trained
        ]
        seconds = statistics.fmean(float(one["seconds"]) for one in trained)
    except (KeyError, TypeError, ValueError):
        return None
    forwards = statistics.fmean(n * pair[0] for n, pair in zip(epochs, per_epoch, strict=True))
    backwards = statistics.fmean(n * pair[1] for n, pair in zip(epochs, per_epoch, strict=True))
    return Cost(statistics.fmean(epochs), forwards, backwards, seconds) if forwards + backwards else None


def _pareto(columns: Sequence[Column], robust: Column | None, count: int) -> tuple[bool, ...]:
    clean = next((column for column in columns if column.name == CLEAN and not column.threat), None)
    if robust is None or clean is None or None in clean.values:
        return (False,) * count
    pairs = zip(clean.values, robust.values, strict=True)
    return tuple(front([(a.mean, b.mean) for a, b in pairs if a is not None and b is not None]))


def _frugal(robust: Column | None, costs: Sequence[Cost | None]) -> tuple[bool, ...]:
    if robust is None:
        return (False,) * len(costs)
    known = [at for at, cost in enumerate(costs) if cost is not None]
    points = [
        (-cost.passes, value.mean) for cost, value in zip(costs, robust.values, strict=True) if cost and value
    ]
    best = dict(zip(known, front(points), strict=True))
    return tuple(best.get(at, False) for at in range(len(costs)))
