"""Results that are read back: sound, or named and not used."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustplug.core.measures import Measure
from robustplug.core.types import Result
from robustplug.errors import RunError
from robustplug.files.reading import Unreadable
from robustplug.files.seals import sealed
from robustplug.report.material import read_material
from robustplug.report.pages.compared import comparison_notes
from robustplug.report.tables.comparison import compare
from robustplug.runs.folder import json_text, write_json
from robustplug.runs.result_file import (
    note_in_result,
    read_result,
    result_from_json,
    result_to_json,
    seal_result,
    write_result,
)

from ..report.runs import bits, pgd, plain, result, row, run

pytestmark = pytest.mark.table

AUDIT = {"grade": "A", "verdict": "no sign", "accuracy": 0.5, "findings": []}


def rich() -> Result:
    """A result with all that a result may hold."""
    classes = {"names": ["a", "b"], "samples": [60, 40]}
    measures = {
        "bleu": Measure(0.5, 0.4, 0.6, 90),
        "none": Measure(float("nan"), float("nan"), float("nan"), 0),
    }
    matrix = ((55, 5), (5, 35))
    clean = row("clean", bits(90), by_class=(55, 35), confusion=matrix, measures=measures, broken=10)
    robust = pgd(
        bits(50), by_class=(30, 20), distance={"linf": 0.1, "l2": float("nan")}, attempted=90, broken=40
    )
    skipped = replace(row("no", bits(1)), accuracy=math.nan, right=(), attempted=0, skipped="refused")
    worst = [{"chain": "main", "threat": {"use": "linf", "eps": 0.1}, "attacks": ["pgd"], "skipped": []}]
    calibration = {"row": "clean", "bins": 15, "error": 0.1, "confidence": 0.8}
    meta = {"classes": classes, "calibration": calibration, "seconds": 1.0, "suite": None}
    return result(clean, robust, skipped, worst_cases=[{**worst[0], "accuracy": 0.5}], **meta)


def put(*path: Any) -> Callable[[Any], None]:
    """Return a damage that puts a value, the last argument, at a path of keys."""
    *keys, last, value = path

    def damage(body: Any) -> None:
        for key in keys:
            body = body[key]
        body[last] = value

    return damage


def swap(body: Any) -> None:
    body["attacks"][0]["right"], body["attacks"][1]["right"] = (body["attacks"][at]["right"] for at in (1, 0))


# Each is tried three ways: beneath the old seal, sealed anew, and without a seal as an earlier version.
VALUES: dict[str, Callable[[Any], None]] = {
    "accuracy 7.5": put("attacks", 1, "accuracy", 7.5),
    "accuracy below 0": put("attacks", 1, "accuracy", -0.5),
    "another accuracy": put("attacks", 1, "accuracy", 0.51),
    "accuracy as text": put("attacks", 1, "accuracy", "0.5"),
    "accuracy true": put("attacks", 1, "accuracy", True),
    "accuracy null": put("attacks", 1, "accuracy", None),
    "accuracy of a skipped row": put("attacks", 2, "accuracy", 0.5),
    "samples 10**12": put("samples", 10**12),
    "samples 10**300": put("samples", 10**300),
    "samples 0": put("samples", 0),
    "samples -1": put("samples", -1),
    "samples as text": put("samples", "100"),
    "samples true": put("samples", True),
    "one sample less": put("samples", 99),
    "swapped samples": swap,
    "short samples": put("attacks", 1, "right", "AAAA"),
    "no base64": put("attacks", 1, "right", "!!!"),
    "samples as a list": put("attacks", 1, "right", [True] * 100),
    "more attempted than samples": put("attacks", 1, "attempted", 101),
    "more broken than attempted": put("attacks", 1, "broken", 91),
    "negative rejected": put("attacks", 1, "rejected", -1),
    "forwards as text": put("attacks", 1, "forwards", "1"),
    "negative seconds": put("attacks", 1, "seconds", -1.0),
    "no name": put("attacks", 1, "name", None),
    "threat without a name": put("attacks", 1, "threat", {"eps": 0.1}),
    "eps as text": put("attacks", 1, "threat", {"use": "linf", "eps": "0.1"}),
    "empty threat": put("threat", {}),
    "a row is a number": put("attacks", 1, 3),
    "rows are a table": put("attacks", {}),
    "an unknown key": put("attacks", 1, "more", 1),
    "classes that do not add up": put("attacks", 1, "by_class", [30, 21]),
    "classes of another number": put("attacks", 1, "by_class", [30, 20, 0]),
    "classes without their samples": put("meta", "classes", None),
    "negative class": put("attacks", 1, "by_class", [51, -1]),
    "confusion without a row": put("attacks", 0, "confusion", [[55, 5]]),
    "confusion of text": put("attacks", 0, "confusion", ["ab", "cd"]),
    "confusion of others": put("attacks", 0, "confusion", [[54, 6], [5, 35]]),
    "measure of text": put("attacks", 0, "measures", "bleu", "mean", "x"),
    "measure without count": put("attacks", 0, "measures", {"bleu": {"mean": 1.0, "low": 1.0, "high": 1.0}}),
    "distance of text": put("attacks", 1, "distance", {"linf": "x"}),
    "meta is a list": put("meta", []),
    "no task": put("meta", "task", None),
    "training of text": put("meta", "training", "long"),
    "training without epochs": put("meta", "training", {"seconds": 1.0}),
    "training of a negative time": put("meta", "training", "seconds", -1.0),
    "worst case 7.5": put("meta", "worst_cases", 0, "accuracy", 7.5),
    "worst case of nothing": put("meta", "worst_cases", [{}]),
    "calibration of text": put("meta", "calibration", "error", "0.1"),
    "samples of classes": put("meta", "classes", "samples", [60, 41]),
    "input range": put("meta", "input_range", [0.0]),
    "corruptions": put("meta", "corruptions", {"errors": {"fog": {"x": 1.0}}, "mean_error": 0.5}),
    "history of numbers": put("history", [1, 2]),
    "history without epochs": put("history", [{"train": {}}]),
    "audit of text": put("audit", "A"),
    "audit without findings": put("audit", {"grade": "A"}),
    "audit 7.5": put("audit", {**AUDIT, "accuracy": 7.5}),
    "format as text": put("format", "3"),
    "format 1": put("format", 1),
    "nested deeply": put("meta", "environment", json.loads("[" * 80 + "]" * 80)),
}


def stored(found: Result) -> dict[str, Any]:
    return seal_result(result_to_json(found), "result")


@pytest.mark.parametrize("way", ["as it was", "sealed anew", "without a seal"])
@pytest.mark.parametrize("name", VALUES)
def test_a_damaged_result_is_not_used(name: str, way: str, tmp_path: Path) -> None:
    body = copy.deepcopy(stored(rich()))
    if way == "without a seal":
        body["format"] = 2
    VALUES[name](body)
    seal = body.pop("seal")
    body |= {"as it was": {"seal": seal}, "sealed anew": sealed(body, name="result"), "without a seal": {}}[
        way
    ]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(body))
    with pytest.raises(Unreadable, match="evaluate the model again") as error:
        read_result(path)
    assert "\n" not in str(error.value)


def test_a_sound_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_result(tmp_path / "mine.json", result_to_json(rich()))
    found = read_result(tmp_path / "mine.json")
    assert found.sealed
    assert str(found.result) == str(rich())


def test_rows_say_what_their_share_is_the_share_of() -> None:
    known = rich()
    known = replace(known, meta={**known.meta, "score": "success"})
    body = json.loads(json_text(result_to_json(known)))
    rows = body["attacks"]
    assert [(each["score"], each["share"]) for each in rows] == [
        ("success", 0.9),
        ("success", 0.5),
        ("success", None),
    ]
    assert not any("accuracy" in each for each in rows)
    assert str(result_from_json(body)) == str(known)
    # Earlier versions called every share an accuracy.
    for each in rows:
        each["accuracy"] = each.pop("share")
        del each["score"]
    assert str(result_from_json(body)) == str(known)
    rows[0]["share"] = rows[0].pop("accuracy")
    with pytest.raises(ValueError, match="does not say what it is the share of"):
        result_from_json(body)


FILES: dict[str, Callable[[Path], object]] = {
    "a digit": lambda path: path.write_text(path.read_text().replace("0.9", "0.8", 1)),
    "a name": lambda path: path.write_text(path.read_text().replace("pgd", "fgs", 1)),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(500)),
    "no text": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "nested deeply": lambda path: path.write_text("[" * 10**5),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("1e400"),
    "an empty table": lambda path: path.write_text("{}"),
    "no seal": lambda path: path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "seal"})
    ),
    "a seal of text": lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "seal": "x"})),
    "of another place": lambda path: write_json(path, seal_result(result_to_json(plain(90, 60)), "other")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_result_of_a_run_is_named_and_the_others_compared(name: str, tmp_path: Path) -> None:
    one, other = (run(tmp_path / each, plain(90, 50), {"quick": plain(90, 40)}) for each in ("one", "other"))
    FILES[name](one / "result.json")
    found = compare([one, other])
    assert [entry.name for entry in found.groups[0].entries] == ["other"]
    (note,) = [line for line in comparison_notes(found) if line.startswith("left out")]
    assert f"{one} result.json" in note
    assert f"robustplug train --resume {one}" in note
    material = read_material(one)
    assert material.result is None
    assert [problem for problem in material.problems if f"{one / 'result.json'} " in problem]
    assert [*material.evaluations] == ["quick"]
    with pytest.raises(RunError, match=r"result\.json"):
        note_in_result(one, "audit", {"x": 1})


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_evaluation_of_a_run_is_named(name: str, tmp_path: Path) -> None:
    one, other = (run(tmp_path / each, plain(90, 50), {"quick": plain(90, 40)}) for each in ("one", "other"))
    FILES[name](one / "evaluations" / "quick.json")
    found = compare([one, other], "quick")
    assert [entry.name for entry in found.groups[0].entries] == ["other"]
    assert f"robustplug evaluate {one} --suite quick" in found.left_out[str(one)] or name == "an empty table"
    material = read_material(one)
    assert material.result is not None
    assert material.evaluations == {}
    assert len(material.problems) == (name != "an empty table"), (
        "a command may write a table of its own there"
    )


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    found = compare([tmp_path / "pipe.json", Path("/dev/zero")])
    assert [*found.left_out.values()] == ["is neither a file nor a folder"] * 2


def test_results_of_earlier_versions_are_read_with_one_note(tmp_path: Path) -> None:
    folders = []
    for name in "ab":
        folders.append(run(tmp_path / name, None))
        write_json(folders[-1] / "result.json", {**result_to_json(plain(90, 50)), "format": 2})
    found = compare(folders)
    (note,) = [line for line in comparison_notes(found) if "without a seal" in line]
    assert all(str(folder) in note for folder in folders)
    assert found.left_out == {}
    note_in_result(folders[0], "finding", 1)
    assert not read_result(folders[0] / "result.json").sealed, "nobody can vouch for it"


def test_a_finding_is_noted_beneath_a_new_seal(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", plain(90, 50))
    # Numbers as keys come back as text, in another order.
    note_in_result(folder, "finding", {2: 1.0, 10: float("nan"), "x": (1, 2)})
    found = read_result(folder / "result.json", folder)
    assert found.sealed
    assert found.body["finding"] == {"2": 1.0, "10": None, "x": [1, 2]}


def test_the_result_of_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", plain(90, 50))
    with pytest.raises(RunError, match="whose result is kept"):
        write_result(folder / "result.json", {})


@pytest.mark.parametrize(
    "body", [{}, [], 3, None, {"format": 2}, {"format": [2]}, {"format": 3, "attacks": 1}]
)
def test_a_body_that_is_no_result_is_a_value_error(body: Any) -> None:
    with pytest.raises(ValueError, match="result|written|format"):
        result_from_json(body)
