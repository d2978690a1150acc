"""Read the folder of a run or a study; parts that cannot be read are reported, not raised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.types import Result
from ..errors import RunError
from ..evaluation.audit.audit import NAME as AUDIT
from ..runs.folder import ENVIRONMENT, EVALUATIONS, METRICS, RECIPE, RESULT, holds_run
from ..runs.result_file import result_from_json

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
        text = (folder / RECIPE).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{folder / RECIPE} cannot be read: {error}") from error
    found = Material(folder, text)
    body = _json(folder / RESULT, found.problems)
    found.environment = _json(folder / ENVIRONMENT, found.problems)
    found.history = _history(folder, body, found.problems)
    found.result = _result(folder / RESULT, body, found.problems)
    audit = body.get(AUDIT)
    for path in sorted((folder / EVALUATIONS).glob("*.json")):
        more = _json(path, found.problems)
        if "attacks" in more and (result := _result(path, more, found.problems)) is not None:
            found.evaluations[path.stem] = result
        if path.stem == AUDIT:
            audit = more.get(AUDIT, audit)
    found.audit = _audit(audit, found.problems)
    return found


def read_extra(material: Material, name: str, path: Path) -> None:
    """Add an evaluation from another folder, if it exists."""
    body = _json(path, material.problems)
    if body and (result := _result(path, body, material.problems)) is not None:
        material.evaluations[name] = result


def read_study(folder: Path) -> Json:
    """Read the result of a study.

    Raises:
        RunError: the result does not exist, or is not that of a study.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} contains neither a run nor a study")
    problems: list[str] = []
    body = _json(folder / RESULT, problems)
    if problems:
        raise RunError(problems[0])
    if not {"cells", "axes", "rows", "seeds", "base", "name"} <= body.keys():
        raise RunError(f"{folder} contains neither a run nor a study")
    return body


def _json(path: Path, problems: list[str]) -> Json:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return {}
    if not isinstance(body, dict):
        problems.append(f"{path} does not contain a JSON object")
        return {}
    return body


def _result(path: Path, body: Json, problems: list[str]) -> Result | None:
    if not body:
        return None
    try:
        return result_from_json(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"{path} is not a result: {error}")
        return None


def _history(folder: Path, body: Json, problems: list[str]) -> Sequence[Json]:
    """Return the epochs: those of the result, or of the metrics while the run is not finished."""
    found = body.get("history")
    if not found:
        found = []
        try:
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(json.loads(line))
            except ValueError:
                problems.append(f"line {number} of {folder / METRICS} cannot be read")
    # A resumed run has reported some epochs twice; the last report counts.
    known = {
        each["epoch"]: each
        for each in found
        if isinstance(each, dict)
        and {"epoch", "train", "validation", "lr"} <= each.keys()
        and all(isinstance(each[key], dict) for key in ("train", "validation"))
    }
    return [known[epoch] for epoch in sorted(known)]


def _audit(body: Any, problems: list[str]) -> Json:
    if body is None:
        return {}
    try:
        for finding in body["findings"]:
            _ = finding["check"], finding["verdict"], finding["measured"].items()
            _ = finding["meaning"], finding["advice"]
        _ = body["grade"], body["verdict"], float(body["accuracy"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"the findings of the audit cannot be read: {error!r}")
        return {}
    return dict(body)


def flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree of tables by their dotted keys; lists are leaves."""
    if not isinstance(table, Mapping):
        return {prefix: table}
    return {
        key: leaf
        for name, value in table.items()
        for key, leaf in flat(value, f"{prefix}.{name}" if prefix else str(name)).items()
    }
