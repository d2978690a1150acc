"""Read the inputs of a comparison: run folders, the cells of studies, and results of evaluations."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.types import Result
from ...errors import RunError
from ...files.reading import Unreadable, is_file, is_folder, read_bytes
from ...runs.folder import RECIPE, RESULT, holds_run
from ...runs.result_file import Stored, evaluation_file, read_result
from ...studies.stored import read_stored_study
from ...studies.tuning.stored import holds_tuning
from ...studies.tuning.tuned import read_tuned


@dataclass(frozen=True)
class Entry:
    """Hold one line of a comparison: a run, or a cell of a study with all its seeds.

    Attributes:
        name: unique name for display.
        folder: folder of the run or of the study, or the file that was read.
        results: result of each seed.
        data: options of the task, if they are known.
        grades: audit grades, one per audited seed.
        unsealed: files that an earlier version wrote without a seal.
    """

    name: str
    folder: Path
    results: tuple[Result, ...]
    data: Mapping[str, Any]
    grades: tuple[str, ...] = ()
    unsealed: tuple[Path, ...] = ()

    @property
    def meta(self) -> Mapping[str, Any]:
        """Return the metadata of the first result."""
        return self.results[0].meta


class Unusable(Exception):
    """An input cannot be compared; the message states why."""


def read_entries(paths: Sequence[str | Path], suite: str = "") -> tuple[list[Entry], dict[str, str]]:
    """Read folders and files; leave out those that cannot be used, and collect the reasons.

    Args:
        paths: run folders, study folders, and JSON files of evaluations.
        suite: suite whose results to read instead of the runs' own evaluations; "audit" and
            "evaluation" (`evaluate` without a suite) are valid names, too.

    Returns:
        The entries in order, and the reason for each input that was left out, by its name.
    """
    entries: list[Entry] = []
    left_out: dict[str, str] = {}
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            entries += _read(path, suite, left_out)
        except Unusable as reason:
            left_out[str(path)] = str(reason)
    names = Counter(entry.name for entry in entries)
    return [
        replace(entry, name=f"{entry.folder}: {entry.name}" if _has_cells(entry) else str(entry.folder))
        if names[entry.name] > 1
        else entry
        for entry in entries
    ], left_out


def _has_cells(entry: Entry) -> bool:
    return is_folder(entry.folder) and not holds_run(entry.folder)


def _read(path: Path, suite: str, left_out: dict[str, str]) -> Iterator[Entry]:
    if is_file(path):
        stored = _stored(path)
        yield Entry(path.stem, path, (stored.result,), {}, _grades(stored), () if stored.sealed else (path,))
    elif holds_run(path):
        yield _of_run(path, suite)
    elif holds_tuning(path):
        yield from _of_tuning(path, suite, left_out)
    elif is_file(path / RESULT):
        yield from _of_study(path, suite, left_out)
    elif not os.path.exists(path):  # noqa: PTH110, which takes names that are too long
        raise Unusable("does not exist")
    elif not is_folder(path):
        raise Unusable("is neither a file nor a folder")
    else:
        raise Unusable("contains neither a run nor a finished study")


def _of_run(folder: Path, suite: str) -> Entry:
    # Something else than a file in its place is named when it is read.
    if not os.path.lexists(folder / RESULT):
        raise Unusable(f"is not finished: resume it with robustplug train --resume {folder}")
    own, file = _stored(folder / RESULT, folder), evaluation_file(folder, suite)
    if not is_file(file):
        raise Unusable(f"lacks this evaluation: run robustplug evaluate {folder} --suite {suite}")
    stored = _stored(file, folder) if suite else own
    # A separate evaluation does not contain the cost of training.
    meta = {**stored.result.meta, "training": own.result.meta.get("training", {})}
    unsealed = tuple(path for path, each in ((folder / RESULT, own), (file, stored)) if not each.sealed)
    results = (replace(stored.result, meta=meta),)
    return Entry(folder.name, folder, results, _task(folder), _grades(own), unsealed)


def _of_study(folder: Path, suite: str, left_out: dict[str, str]) -> Iterator[Entry]:
    try:
        study = read_stored_study(folder)
    except RunError as error:
        raise Unusable(str(error).removeprefix(str(folder)).lstrip(" /")) from error
    for cell in study.cells:
        seeds = []
        for run in cell.runs:
            path = folder / run.folder
            try:
                if run.reason:
                    raise Unusable(f"failed: {run.reason}")
                if not holds_run(path):
                    raise Unusable("was not started")
                seeds.append(_of_run(path, suite))
            except Unusable as reason:
                left_out[str(path)] = str(reason)
        if seeds:
            name = cell.name or study.base
            results = tuple(seed.results[0] for seed in seeds)
            if len({(one.split, one.samples, one.meta.get("samples_digest")) for one in results}) > 1:
                left_out[f"{folder}: {name}"] = "its runs were evaluated on different samples"
                continue
            grades = tuple(grade for seed in seeds for grade in seed.grades)
            unsealed = tuple(path for seed in seeds for path in seed.unsealed)
            yield Entry(name, folder, results, seeds[0].data, grades, unsealed)


def _of_tuning(folder: Path, suite: str, left_out: dict[str, str]) -> Iterator[Entry]:
    """Yield the finalists, or of a tuning that is not finished the trials of its front."""
    try:
        tuned = read_tuned(folder)
    except RunError as error:
        raise Unusable(str(error).removeprefix(str(folder)).lstrip(" /")) from error
    for trial in tuned.finalists or tuned.front:
        try:
            yield replace(_of_run(trial.folder, suite), name=f"trial {trial.number}", folder=folder)
        except Unusable as reason:
            left_out[str(trial.folder)] = str(reason)


def _stored(path: Path, run: Path | None = None) -> Stored:
    """Read a result; of a run, the message starts with the name of the file in it."""
    try:
        stored = read_result(path, run)
    except (FileNotFoundError, Unreadable) as error:
        raise Unusable(str(error) if run is None else f"{path.relative_to(run)} {error}") from error
    rows = stored.result.attacks
    if not rows or rows[0].skipped:
        raise Unusable("contains no clean row")
    return stored


def _task(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(tomllib.loads(read_bytes(folder / RECIPE).decode())["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unusable(f"{RECIPE} cannot be read: {error}") from error


def _grades(stored: Stored) -> tuple[str, ...]:
    audit = stored.body.get("audit")
    return (str(audit["grade"]),) if audit else ()
