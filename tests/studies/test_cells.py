"""Cells of a study that start from the runs of other cells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.core.reporting import Silent
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.study import Study, read_study
from robustplug.studies.outcome import runs_of
from robustplug.studies.study import SilentStudy

NETWORK = {"use": "small-cnn", "width": 2, "hidden": 4}
FAST = {"use": "pgd", "steps": 1}


def student(teacher: str) -> dict[str, Any]:
    return {
        "method": {"use": "rslad", "teacher": {**NETWORK, "from": teacher}, "perturbation": FAST},
    }


def case(label: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "set": changes}


def study(*cases: dict[str, Any], axes: tuple[dict[str, Any], ...] = (), **rest: Any) -> dict[str, Any]:
    return {
        "base": "erm",
        "set": {
            "model": NETWORK,
            "task": {"use": "digits", "test": 1700, "validation": 20},
            "train": {"epochs": 1, "batch_size": 32, "device": "cpu"},
            "validate": {"attack": {"use": "none"}},
            "evaluate": {"samples": 8, "attack": []},
        },
        "axis": [{"name": "method", "case": list(cases)}, *axes],
        **rest,
    }


# The student is written before its teacher.
PAIR = study(case("student", student("cell:method=teacher")), case("teacher", {}), seeds=[3, 4])


def problems(tables: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    with pytest.raises(RecipeError) as caught:
        read_study(tables)
    return [(problem.key, problem.message, problem.hint) for problem in caught.value.problems]


def names(found: Study, folder: Path) -> list[str]:
    return [run.folder.name for run in runs_of(found, folder)]


def test_a_run_comes_after_that_of_the_same_seed_that_it_starts_from(tmp_path: Path) -> None:
    runs = {run.folder.name: run for run in runs_of(read_study(PAIR), tmp_path)}
    order = list(runs)
    for seed in (3, 4):
        teacher, learner = f"method-teacher_seed-{seed}", f"method-student_seed-{seed}"
        assert order.index(teacher) < order.index(learner)
        assert runs[learner].recipe.method.options.teacher.start == str(tmp_path / "runs" / teacher)
        assert not runs[teacher].needs


def test_other_axes_keep_their_labels(tmp_path: Path) -> None:
    lr = {"key": "optimizer.lr", "values": [0.1, 0.2]}
    pair = study(case("student", student("cell:method=teacher")), case("teacher", {}), axes=(lr,))
    for run in runs_of(read_study(pair), tmp_path):
        assert [need.name for need in run.needs.values()] == (
            [run.folder.name.replace("student", "teacher")] if "student" in run.folder.name else []
        )


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([case("one", student("cell:method=two"))], ['"method=two" is no cell of this study']),
        ([case("one", student("cell:method=one"))], ["starts in turn from this cell"]),
        (
            [case("one", student("cell:method=two")), case("two", student("cell:method=one"))],
            ["starts in turn from this cell"] * 2,
        ),
    ],
)
def test_a_missing_or_circular_cell_is_refused(cases: list[dict[str, Any]], said: list[str]) -> None:
    found = problems(study(*cases))
    assert len(found) == len(said)
    for (key, message, hint), text in zip(found, said, strict=True):
        assert key.startswith("axis.0.case.")
        assert message.startswith("method.teacher.from")
        assert text in message
        assert hint is None or "method=" in hint


class Started(SilentStudy):
    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, number: int, name: str) -> Any:
        self.names.append(name)
        return Silent()


def test_a_student_is_trained_from_its_teacher_and_resumed_where_the_study_was_moved(tmp_path: Path) -> None:
    one = {**PAIR, "seeds": [3]}
    studied = robustplug.study(one, out=tmp_path / "study", processes=1)
    assert studied.failed == {}
    moved = shutil.move(tmp_path / "study", tmp_path / "moved")
    heard = Started()
    assert robustplug.study(one, out=moved, processes=1, reporter=heard).failed == {}
    assert heard.names == []


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_without_its_teacher_a_student_is_not_started(tmp_path: Path, processes: int) -> None:
    broken = {"optimizer": {"use": "sgd", "lr": 1e30}}
    pair = study(case("student", student("cell:method=teacher")), case("teacher", broken))
    studied = robustplug.study(pair, out=tmp_path / "study", processes=processes)
    assert set(studied.failed) == {"method-teacher_seed-0", "method-student_seed-0"}
    assert studied.failed["method-student_seed-0"].startswith(
        "starts from method=teacher, seed=0, which is failed: "
    )
    assert not (tmp_path / "study" / "runs" / "method-student_seed-0").exists()
