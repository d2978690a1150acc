"""Read the inputs of a comparison: run folders, the cells of studies, and results of evaluations."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.types import Result
from ...runs.folder import EVALUATIONS, RECIPE, RESULT, holds_run, is_finished
from ...runs.result_file import result_from_json


@dataclass(frozen=True)
class Entry:
    """Hold one line of a comparison: a run, or a cell of a study with all its seeds.

    Attributes:
        name: unique name for display.
        folder: folder of the run or of the study, or the file that was read.
        results: result of each seed.
        data: options of the task, if they are known.
        grades: audit grades, one per audited seed.
    """

    name: str
    folder: Path
    results: tuple[Result, ...]
    data: Mapping[str, Any]
    grades: tuple[str, ...] = ()

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
    return entry.folder.is_dir() and not holds_run(entry.folder)


def _read(path: Path, suite: str, left_out: dict[str, str]) -> Iterator[Entry]:
    if path.is_file():
        body = _json(path)
        yield Entry(path.stem, path, (_result(body),), {}, _grades(body))
    elif holds_run(path):
        yield _of_run(path, suite)
    elif (path / RESULT).is_file():
        yield from _of_study(path, suite, left_out)
    elif not path.exists():
        raise Unusable("does not exist")
    else:
        raise Unusable("contains neither a run nor a finished study")


def _of_run(folder: Path, suite: str) -> Entry:
    if not is_finished(folder):
        raise Unusable(f"is not finished: resume it with robustplug train --resume {folder}")
    own = _json(folder / RESULT, f"{RESULT} ")
    file = folder / EVALUATIONS / f"{suite}.json" if suite else folder / RESULT
    if not file.is_file():
        raise Unusable(f"lacks this evaluation: run robustplug evaluate {folder} --suite {suite}")
    result = _result(_json(file, f"{file.name} "), f"{file.name} ")
    # A separate evaluation does not contain the cost of training.
    training = _result(own, f"{RESULT} ").meta.get("training", {})
    result = replace(result, meta={**result.meta, "training": training})
    return Entry(folder.name, folder, (result,), _task(folder), _grades(own))


def _of_study(folder: Path, suite: str, left_out: dict[str, str]) -> Iterator[Entry]:
    body = _json(folder / RESULT, f"{RESULT} ")
    try:
        cells = [
            (str(cell["name"] or body["base"]), [(folder / run["folder"], run) for run in cell["runs"]])
            for cell in body["cells"]
        ]
        failed = {path: str(run["reason"]) for _, runs in cells for path, run in runs if run["reason"]}
    except (KeyError, TypeError) as error:
        raise Unusable(f"{folder / RESULT} is not the result of a study") from error
    for name, runs in cells:
        seeds = []
        for path, _ in runs:
            try:
                if path in failed:
                    raise Unusable(f"failed: {failed[path]}")
                if not holds_run(path):
                    raise Unusable("was not started")
                seeds.append(_of_run(path, suite))
            except Unusable as reason:
                left_out[str(path)] = str(reason)
        if seeds:
            results = tuple(seed.results[0] for seed in seeds)
            if len({(one.split, one.samples, one.meta.get("samples_digest")) for one in results}) > 1:
                left_out[f"{folder}: {name}"] = "its runs were evaluated on different samples"
                continue
            grades = tuple(grade for seed in seeds for grade in seed.grades)
            yield Entry(name, folder, results, seeds[0].data, grades)


def _json(path: Path, name: str = "") -> Mapping[str, Any]:
    """Read a JSON file; `name` precedes the error where the message otherwise names only the folder."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"{name}cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Unusable(f"{name}is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Unusable(f"{name}is not a result")
    return body


def _result(body: Mapping[str, Any], name: str = "") -> Result:
    try:
        result = result_from_json(body)
    except ValueError as error:
        raise Unusable(f"{name}cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"{name}is not the result of an evaluation") from error
    if not result.attacks or result.attacks[0].skipped:
        raise Unusable(f"{name}contains no clean accuracy")
    return result


def _task(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unusable(f"{RECIPE} cannot be read: {error}") from error


def _grades(body: Mapping[str, Any]) -> tuple[str, ...]:
    audit = body.get("audit")
    return (str(audit["grade"]),) if isinstance(audit, dict) and "grade" in audit else ()
