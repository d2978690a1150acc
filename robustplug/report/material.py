"""Read the folder of a run or a study; parts that cannot be read are reported, not raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.types import Result
from ..errors import RunError
from ..files.reading import Unreadable, is_file, parse_json, read_bytes
from ..files.seals import parsed
from ..runs.folder import ENVIRONMENT, MANIFEST, METRICS, RECIPE, RESULT, holds_run, is_finished
from ..runs.manifest import digest_of, read_manifest
from ..runs.result_file import (
    AUDIT,
    Stored,
    evaluation_file,
    note_on_seals,
    read_evaluations,
    read_result,
    read_sealed,
)
from ..runs.result_types import StoredEpoch

Json = Mapping[str, Any]


@dataclass
class Material:
    """Hold the content of a run folder.

    Attributes:
        folder: the run folder.
        recipe: text of the resolved recipe.
        environment: versions and device; empty if they are unknown.
        history: reports of the epochs, in order.
        result: result of the run's own evaluation; None while the run is not finished.
        evaluations: results of suites and of the audit, by name.
        audit: findings of the audit; empty for none.
        problems: a sentence for each part that could not be read.
    """

    folder: Path
    recipe: str
    environment: Json = field(default_factory=dict)
    history: Sequence[Json] = ()
    result: Result | None = None
    evaluations: dict[str, Result] = field(default_factory=dict)
    audit: Json = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def results(self) -> dict[str, Result]:
        """Return all evaluations, with that of the run itself under ""."""
        return ({"": self.result} if self.result is not None else {}) | self.evaluations


def read_material(folder: Path) -> Material:
    """Read a run folder, finished or not.

    Raises:
        RunError: the folder is not a run folder.
    """
    if not holds_run(folder):
        raise RunError(f"{folder} is not a run folder: it contains no {RECIPE}")
    try:
        text = read_bytes(folder / RECIPE).decode(errors="replace")
    except (FileNotFoundError, Unreadable) as error:
        raise RunError(f"{folder / RECIPE} {error}") from error
    found = Material(folder, text)
    found.environment = _environment(folder, found.problems)
    _compare_with_manifest(found)
    own = _result(folder / RESULT, folder, found.problems)
    evaluations = read_evaluations(folder, found.problems)
    found.result = None if own is None else own.result
    found.evaluations = {name: each.result for name, each in evaluations.items()}
    found.history = _history(folder, own, found.problems)
    # The audit of the run is also in its own result.
    found.audit = next(
        (each.body[AUDIT] for each in (evaluations.get(AUDIT), own) if each and each.body.get(AUDIT)), {}
    )
    stored = {"": own, **evaluations}
    unsealed = [evaluation_file(folder, name) for name, each in stored.items() if each and not each.sealed]
    found.problems += note_on_seals(unsealed)
    return found


def read_extra(material: Material, name: str, path: Path) -> None:
    """Add an evaluation of the run from another folder, if it exists."""
    found = _result(path, material.folder, material.problems)
    if found is not None:
        material.evaluations[name] = found.result


def _result(path: Path, run: Path, problems: list[str]) -> Stored | None:
    try:
        return read_result(path, run)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        problems.append(f"{path} {error}")
        return None


def _compare_with_manifest(found: Material) -> None:
    """Show the recipe of the start if recipe.toml is another, and leave out a changed environment."""
    try:
        manifest = read_manifest(found.folder)
    except Unreadable as error:
        found.problems.append(f"{found.folder / MANIFEST} {error}")
        return
    if manifest is not None and manifest.recipe != found.recipe:
        found.recipe = manifest.recipe
        problem = f"{found.folder / RECIPE} was edited: this is the recipe that the run was started with"
        found.problems.append(f"{problem}, of {MANIFEST}")
    stated = None if manifest is None else manifest.files.get(ENVIRONMENT)
    path = found.folder / ENVIRONMENT
    # While a run is extended, the digest is that of before.
    if stated and is_finished(found.folder) and not (is_file(path) and digest_of(path) == stated):
        found.environment = {}
        found.problems.append(f"{path} was changed or removed after the run was finished: it is left out")


def _environment(folder: Path, problems: list[str]) -> Json:
    try:
        return read_sealed(folder / ENVIRONMENT)[0]
    except FileNotFoundError:
        return {}
    except Unreadable as error:
        problems.append(f"{folder / ENVIRONMENT} {error}")
        return {}


def _history(folder: Path, own: Stored | None, problems: list[str]) -> Sequence[Json]:
    """Return the epochs: those of the result, or of the metrics while the run is not finished."""
    found = [] if own is None else list(own.body.get("history", ()))
    try:
        found = found or list(_metrics(folder / METRICS, problems))
    except FileNotFoundError:
        pass
    except Unreadable as error:
        problems.append(f"{folder / METRICS} {error}")
    # A resumed run has reported some epochs twice; the last report counts.
    known = {each["epoch"]: each for each in found}
    return [known[epoch] for epoch in sorted(known)]


def _metrics(path: Path, problems: list[str]) -> Iterator[Json]:
    """Yield the epochs of metrics.jsonl; the last line of a running or killed run may be incomplete."""
    bad: list[str] = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        try:
            if line.strip():
                body = parse_json(line)
                parsed(StoredEpoch, body)
                yield body
        except Unreadable as error:
            bad.append(f"line {number} {error}")
    if bad:
        more = f" (and {len(bad) - 1} more lines)" if bad[1:] else ""
        problems.append(f"{path}: {bad[0]}{more}; these epochs are left out")


def flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree of tables by their dotted keys; lists are leaves."""
    if not isinstance(table, Mapping):
        return {prefix: table}
    return {
        key: leaf
        for name, value in table.items()
        for key, leaf in flat(value, f"{prefix}.{name}" if prefix else str(name)).items()
    }
