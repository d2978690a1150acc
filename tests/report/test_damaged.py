"""A page is made of what can be believed, and names the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustplug.report.material import read_material
from robustplug.run import report
from robustplug.runs.folder import write_json
from robustplug.runs.manifest import Manifest, digest_of, write_manifest
from robustplug.runs.result_file import result_to_json, seal_result

from .runs import plain, run

pytestmark = pytest.mark.table

EPOCH = {
    "epoch": 0,
    "train": {"loss": 1.5},
    "validation": {"clean": 0.5},
    "lr": 0.1,
    "seconds": 1.0,
    "best": True,
}


def text(value: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(value)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


FILES: dict[str, Callable[[Path], object]] = {
    "no JSON": text("{"),
    "a list": text("[]"),
    "a number": text("7"),
    "nested deeply": text("[" * 10**5),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "zeros": lambda path: path.write_bytes(bytes(99)),
    "a pipe": fifo,
    "a folder": folder,
}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    made = run(tmp_path / "x", plain(90, 50), {"quick": plain(90, 40)})
    (made / "environment.json").write_text('{"python": "3.11"}')
    return made


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("file", ["result.json", "evaluations/quick.json", "environment.json"])
def test_a_file_that_cannot_be_believed_is_named_on_the_page(name: str, file: str, whole: Path) -> None:
    FILES[name](whole / file)
    page = report(whole, compute=False).page.read_text()
    assert file.rpartition("/")[2] in page
    problems = read_material(whole).problems
    assert len(problems) == 1
    assert str(whole / file) in problems[0]


LINES: dict[str, Any] = {
    "no JSON": "{",
    "a list": [EPOCH],
    "an epoch of text": {**EPOCH, "epoch": "0"},
    "a negative epoch": {**EPOCH, "epoch": -1},
    "an epoch that is true": {**EPOCH, "epoch": True},
    "a huge epoch": {**EPOCH, "epoch": 10**400},
    "a loss of text": {**EPOCH, "train": {"loss": "1"}},
    "a list of losses": {**EPOCH, "train": [1.0]},
    "no rate": {key: value for key, value in EPOCH.items() if key != "lr"},
    "a rate of text": {**EPOCH, "lr": "0.1"},
    "an infinite rate": '{"epoch": 0, "train": {}, "validation": {}, "lr": 1e999}',
    "nested deeply": "[" * 9999,
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_of_the_metrics_that_cannot_be_believed_is_left_out(name: str, tmp_path: Path) -> None:
    made, line = run(tmp_path / "x", None), LINES[name]
    sound = [json.dumps({**EPOCH, "epoch": number}) for number in range(1, 4)]
    lines = [line if isinstance(line, str) else json.dumps(line), *sound]
    (made / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    page = report(made, compute=False).page.read_text()
    material = read_material(made)
    assert [each["epoch"] for each in material.history] == [1, 2, 3]
    (problem,) = material.problems
    assert f"{made / 'metrics.jsonl'}: line 1 " in problem
    assert "these epochs are left out" in page


def test_the_metrics_are_no_file(tmp_path: Path) -> None:
    made = run(tmp_path / "x", None)
    fifo(made / "metrics.jsonl")
    report(made, compute=False)
    (problem,) = read_material(made).problems
    assert problem == f"{made / 'metrics.jsonl'} is a named pipe, not a file"


@pytest.mark.parametrize("change", [lambda path: path.write_text("{}"), lambda path: path.unlink()])
def test_an_environment_that_is_not_that_of_the_run_is_left_out(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    made = run(tmp_path / "run", None)
    path = made / "environment.json"
    path.write_text('{"torch": "9.9"}')
    files = {path.name: digest_of(path)}
    recipe = (made / "recipe.toml").read_text()
    write_manifest(made, Manifest(run="0" * 32, recipe=recipe, digest="d" * 64, threads=1, files=files))
    write_json(made / "result.json", seal_result(result_to_json(plain(60, 30)), "result", made))
    assert read_material(made).environment == {"torch": "9.9"}
    change(path)
    found = read_material(made)
    assert found.environment == {}
    assert f"{path} was changed or removed" in " ".join(found.problems)
