"""Results as JSON: sealed when they are written, checked when they are read. This does not import torch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.measures import Certified, Measure
from ..core.types import AttackResult, EpochReport, Result
from ..errors import RunError
from ..files.reading import Unreadable, read_json
from ..files.seals import SEAL, opened, parsed, sealed
from .folder import EVALUATIONS, RESULT, holds_run, json_text, put_aside, write_json, writing
from .manifest import record, run_id
from .result_types import StoredResult, StoredRow

# Name of the result of an audit.
AUDIT = "audit"
# Results of format 2 carry no seal.
FORMAT, UNSEALED = 3, 2


def result_to_json(result: Result, history: Sequence[EpochReport] = ()) -> dict[str, Any]:
    """Return a result as JSON; `right`, one bit for each sample in order, is encoded in base64.

    Sample i is bit i % 8 of byte i // 8, counted from the highest bit. Rows whose score is no accuracy say
    what it is; see `StoredRow`.
    """
    body = asdict(replace(result, examples=None, texts={}))
    del body["examples"], body["texts"]
    for row in body["attacks"]:
        row["right"] = base64.b64encode(np.packbits(np.array(row["right"], dtype=bool)).tobytes()).decode()
        if row["certified"] is not None:
            radii = np.array(row["certified"]["radii"], dtype="<f8").tobytes()
            row["certified"]["radii"] = base64.b64encode(radii).decode()
        if "score" in result.meta:
            row["score"], row["share"] = result.meta["score"], row.pop("accuracy")
    return {"format": FORMAT, **body, "history": [asdict(report) for report in history]}


def result_from_json(body: Mapping[str, Any]) -> Result:
    """Undo `result_to_json`.

    Raises:
        ValueError: the body is not a result, or has another format.
    """
    if not isinstance(body, Mapping) or "format" not in body:
        raise Unreadable("is not the result of an evaluation")
    if body["format"] not in (FORMAT, UNSEALED):
        raise Unreadable(f"has format {body['format']!r:.20}, not {FORMAT}: evaluate the model again")
    stored = parsed(StoredResult, {key: value for key, value in body.items() if key != SEAL})
    rows = tuple(_row(row, stored.samples) for row in stored.attacks)
    return Result(stored.split, stored.samples, stored.threat, rows, body["meta"])


def _row(row: StoredRow, samples: int) -> AttackResult:
    # The length of the bits is that of the samples: nothing is allocated for a number that is only stated.
    packed = np.frombuffer(row.bits(samples), dtype=np.uint8)
    right = np.unpackbits(packed, count=samples).astype(bool).tolist() if len(packed) else ()
    values = row.model_dump()
    numbers = {name: Measure(**_with_nan(each)) for name, each in values["measures"].items()}
    accuracy = math.nan if row.accuracy is None else row.accuracy
    changes: dict[str, Any] = {"accuracy": accuracy, "right": tuple(right)}
    counts = {"by_class": tuple(row.by_class), "confusion": tuple(map(tuple, row.confusion))}
    if row.certified is not None:
        radii = tuple(row.certified.numbers(samples))
        changes["certified"] = Certified(**{**values["certified"], "radii": radii})
    return AttackResult(
        **{**values, **changes, **counts, "measures": numbers, "distance": _with_nan(row.distance)}
    )


def _with_nan(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers with NaN for each that JSON could not represent."""
    return {name: math.nan if value is None else value for name, value in numbers.items()}


@dataclass(frozen=True)
class Stored:
    """Hold a result that was read.

    Attributes:
        result: the result.
        body: the JSON object that it was in, without its seal.
        sealed: whether it had a seal, which earlier versions did not write.
    """

    result: Result
    body: Mapping[str, Any] = field(default_factory=dict)
    sealed: bool = True


def read_result(path: Path, run: Path | None = None) -> Stored:
    """Read a result, and check its seal, its types and its ranges.

    Args:
        path: path of the JSON file.
        run: the run folder that the result must belong to; None for any.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it cannot be read, was changed after it was written, belongs to another run, or is not a
            result; the message says how to make it again.
    """
    try:
        return _stored(*read_sealed(path, run))
    except Unreadable as error:
        raise Unreadable(f"{error}; {_again(path, run)}") from error


def read_evaluations(run: Path, problems: list[str]) -> dict[str, Stored]:
    """Read the evaluations of a run folder by name; add a sentence for each that cannot be read."""
    found = {}
    for path in sorted((run / EVALUATIONS).glob("*.json")):
        try:
            body, has_seal = read_sealed(path, run)
            # Commands of plugins write results of their own kinds beside them.
            if "attacks" in body or "format" in body:
                found[path.stem] = _stored(body, has_seal)
        except FileNotFoundError:
            continue
        except Unreadable as error:
            problems.append(f"{path} {error}; {_again(path, run)}")
    return found


def _stored(body: Mapping[str, Any], has_seal: bool) -> Stored:
    result = result_from_json(body)
    if body["format"] != UNSEALED and not has_seal:
        raise Unreadable("has lost its seal: it was changed after it was written")
    return Stored(result, body, has_seal)


def note_on_seals(unsealed: Sequence[Path]) -> list[str]:
    """Return a sentence that names the files without a seal; none if there are none."""
    if not unsealed:
        return []
    names = ", ".join(map(str, unsealed[:3])) + (f" and {len(unsealed) - 3} more" if unsealed[3:] else "")
    return [f"Written by an earlier version, without a seal, so changes cannot be found: {names}."]


def read_sealed(path: Path, run: Path | None = None) -> tuple[dict[str, Any], bool]:
    """Read a JSON object, and return it without its seal, and whether it had one.

    Args:
        path: path of the JSON file.
        run: the run folder that a sealed file must belong to; None for any.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it cannot be read, was changed after it was written, or belongs to another run.
    """
    body = read_json(path)
    if not isinstance(body, dict):
        raise Unreadable("does not contain a JSON object")
    if SEAL not in body:
        return body, False
    plain, belongs = opened(body)
    expected = {} if run is None else {"name": path.stem, "run": run_id(run)}
    for key, value in expected.items():
        # Without a manifest, the run of the folder is not known.
        if value is not None and belongs.get(key, value) != value:
            whose = "another run" if key == "run" else f"the result {belongs[key]!r:.60}"
            raise Unreadable(f"belongs to {whose}: it was put in this place after it was written")
    return plain, True


def _again(path: Path, run: Path | None) -> str:
    """Return how to make a result again."""
    if run is None:
        return "evaluate the model again"
    if path.parent == run:
        return f"move it away, and make it again: robustplug train --resume {run}"
    command = {"audit": f"audit {run}", "evaluation": f"evaluate {run}"}
    return f"make it again: robustplug {command.get(path.stem, f'evaluate {run} --suite {path.stem}')}"


def seal_result(body: Mapping[str, Any], name: str, run: Path | None = None) -> dict[str, Any]:
    """Return the body of a result with a seal.

    Args:
        body: the result as JSON.
        name: name of its file without the ending.
        run: run folder of the model; None if it has none.
    """
    # What is sealed is what will be read: without NaN, and with strings as keys.
    plain = json.loads(json_text(dict(body)))
    number = None if run is None else run_id(run)
    return sealed(plain, name=name, **({} if number is None else {"run": number}))


def write_result(file: Path, body: Mapping[str, Any], run: Path | None = None) -> None:
    """Write a result as sealed JSON, and create its folder if it does not exist.

    Args:
        file: path of the JSON file.
        body: the result.
        run: run folder of the model that it is about; None if it has none.

    Raises:
        RunError: the file cannot be written, or it is the result of a run, which must be kept.
    """
    if file.name == RESULT and holds_run(file.parent):
        raise RunError(f"{file.parent} is a run folder, whose result is kept: choose another with --out")
    with writing(f"the result {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, seal_result(body, file.stem, run))


def make_room(file: Path) -> None:
    """Refuse to replace a file that is no result of ours; in a run folder, a damaged one is put aside.

    Raises:
        RunError: it is the file of somebody else.
    """
    body: Any = None
    try:
        body = read_json(file)
    except FileNotFoundError:
        return
    except Unreadable:
        pass
    if isinstance(body, dict) and (SEAL in body or {"format", "attacks"} <= body.keys()):
        return
    if file.parent.name != EVALUATIONS or not holds_run(file.parent.parent):
        raise RunError(
            f"{file} exists and is no result of robustplug: move it away, or choose another folder with --out"
        )
    with writing(f"to {file.parent}"):
        put_aside(file, "damaged")


def note_in_result(folder: Path, name: str, value: Any) -> None:
    """Add a finding to the result.json of a run folder, if the file exists; replace an older finding.

    Raises:
        RunError: the file cannot be read or written.
    """
    path = folder / RESULT
    try:
        found = read_result(path, folder)
    except FileNotFoundError:
        return
    except Unreadable as error:
        raise RunError(f"{path} {error}") from error
    noted = {**found.body, name: value}
    with writing(f"to {path}"):
        # A seal would say of numbers that nobody could check that they are as they were written.
        write_json(path, seal_result(noted, path.stem, folder) if found.sealed else noted)
    record(folder, RESULT)


def evaluation_file(run: Path, name: str) -> Path:
    """Return the file of an evaluation of a run; "" for its own result."""
    return run / EVALUATIONS / f"{name}.json" if name else run / RESULT
