"""A study whose files were damaged goes on with what is sound, and computes the rest again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.core.reporting import Silent
from robustplug.errors import RunError
from robustplug.run import report
from robustplug.studies.stored import read_study_body
from robustplug.studies.study import SilentStudy, refuse_foreign

from ..training.runs import timeless

STUDY: dict[str, Any] = {
    "name": "mine",
    "base": "cat",
    "seeds": [0, 1],
    "suite": {"name": "fast", "row": [{"attack": {"use": "fgsm"}}]},
    "set": {
        "train": {"epochs": 1, "device": "cpu", "batch_size": 32},
        "task": {"validation": 1400, "test": 300},
        "model.width": 2,
        "method.perturbation.steps": 1,
        "validate.samples": 20,
        "validate.attack.steps": 1,
        "evaluate.samples": 40,
        "evaluate.attack": [{"use": "pgd", "steps": 1}],
    },
}


class Heard(SilentStudy):
    """Collect which runs start, and what they warn of."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.warnings: list[str] = []

    def start(self, number: int, name: str) -> Any:
        self.started.append(number)
        heard = self

        class One(Silent):
            def warn(self, message: str) -> None:
                heard.warnings.append(message)

        return One()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the study; its suite lies beside it."""
    import tomli_w

    folder = tmp_path_factory.mktemp("source")
    (folder / "fast.toml").write_text(tomli_w.dumps({"row": STUDY["suite"]["row"]}))
    (folder / "mine.toml").write_text(tomli_w.dumps({**STUDY, "suite": "fast.toml"}))
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert robustplug.study(source, out=folder, processes=1).failed == {}
    return folder


def again(source: Path, folder: Path) -> tuple[Any, Heard]:
    heard = Heard()
    studied = robustplug.study(source, out=folder, processes=1, reporter=heard)
    assert studied.failed == {}
    return timeless(studied.result), heard


def edit(path: Path) -> None:
    body = json.loads(path.read_text())
    body["attacks"][1]["accuracy"] = 0.975
    path.write_text(json.dumps(body))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "edited": edit,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "of another run": lambda path: shutil.copy(
        path.parents[1] / "seed-1" / path.name
        if path.name == "result.json"
        else path.parents[2] / "seed-1" / "evaluations" / path.name,
        path,
    ),
    "a list": lambda path: path.write_text("[]"),
}


FAST = [("edited", "result.json"), ("of another run", "evaluations/fast.json")]
CASES = [(name, file) for name in DAMAGES for file in ("result.json", "evaluations/fast.json")]


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES],
)
def test_a_damaged_result_of_a_run_is_computed_again(
    name: str, file: str, whole: Path, source: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "study")
    path = folder / "runs" / "seed-0" / file
    DAMAGES[name](path)
    damaged = path.read_bytes()
    result, heard = again(source, folder)
    assert result == timeless(read_study_body(whole)[0])
    assert heard.started == [1], "the other run is not touched"
    named = [text for text in heard.warnings if str(path) in text]
    assert len(named) == 1
    assert "it is not used, and computed again" in named[0]
    kept = path.with_name("result-damaged.json")
    assert kept.read_bytes() == damaged if file == "result.json" else not kept.exists()
    assert again(source, folder)[1].started == []


def put(*path: Any) -> Callable[[Any], None]:
    *keys, last, value = path

    def damage(body: Any) -> None:
        for key in keys:
            body = body[key]
        body[last] = value

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        put("cells", 3),
        put("cells", []),
        put("axes", {}),
        put("rows", ["no"]),
        put("seeds", "01"),
        put("name", 3),
        put("format", 2),
        put("cells", 0, "runs", 0, "folder", "../../../../etc"),
        put("cells", 0, "runs", 0, "folder", "runs/.."),
        put("cells", 0, "runs", 0, "folder", "/etc"),
        put("cells", 0, "runs", 0, "accuracies", {"clean": 7.5}),
        put("cells", 0, "runs", 0, "seconds", "long"),
        put("cells", 0, "runs", 0, "audit", {"grade": 1}),
        put("cells", 0, "rows", "clean", "mean", 1.5),
        put("cells", 0, "rows", "clean", {}),
        put("cells", 0, "threats", {"clean": {"eps": "x"}}),
        put("cells", 0, "labels", []),
    ],
    ids=range(17),
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_result_of_a_study_is_one_sentence(
    damage: Callable[[Any], None], sealed: bool, whole: Path, source: Path, tmp_path: Path
) -> None:
    body = json.loads((whole / "result.json").read_text())
    damage(body)
    if not sealed:
        del body["seal"]
    (tmp_path / "result.json").write_text(json.dumps(body))
    for use in (read_study_body, report):
        with pytest.raises(RunError) as error:
            use(tmp_path)
        assert "result.json" in str(error.value)
        assert "study's command again" in str(error.value)
        assert "\n" not in str(error.value)
    found = robustplug.compare([tmp_path])
    assert found.groups == ()
    assert "result.json" in found.left_out[str(tmp_path)]


def test_a_study_writes_its_result_anew(whole: Path, source: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "study")
    (folder / "result.json").write_text("{")
    result, heard = again(source, folder)
    assert result == timeless(read_study_body(whole)[0])
    assert heard.started == []
    assert (folder / "result-damaged.json").read_text() == "{"


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def other_result(folder: Path) -> None:
    folder.mkdir()
    (folder / "result.json").write_text('{"mine": 1}')


def a_run(folder: Path) -> None:
    folder.mkdir()
    (folder / "recipe.toml").write_text("")


@pytest.mark.parametrize("make", [foreign, other_result, a_run])
def test_a_folder_of_something_else_is_refused(
    make: Callable[[Path], None], source: Path, tmp_path: Path
) -> None:
    make(tmp_path / "mine")
    before = {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    with pytest.raises(RunError, match="--out"):
        robustplug.study(source, out=tmp_path / "mine", processes=1)
    assert {path: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before


def test_a_folder_of_a_study_may_hold_more(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "study")
    (folder / "notes.txt").write_text("mine")
    refuse_foreign(folder)
    refuse_foreign(tmp_path / "absent")


def test_the_folder_of_a_run_that_holds_something_else_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "study" / "runs" / "seed-0"
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("mine")
    studied = robustplug.study(source, out=tmp_path / "study", processes=1)
    assert "not empty and holds no run" in studied.failed["seed-0"]
    assert [path.name for path in own.iterdir() if not path.name.startswith(".")] == ["thesis.txt"]
