from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustplug.builtin import metrics
from robustplug.core.types import EpochReport, RunInfo


def run(folder: Path, resumed_at: int | None = None) -> RunInfo:
    return RunInfo("toy", str(folder), "erm", "digits", "small-cnn", 5, resumed_at)


def report(epoch: int) -> EpochReport:
    return EpochReport(epoch, {"loss": 1.0 / (epoch + 1), "ε": 0.5}, {"clean": 0.5}, 0.1, 1.5, epoch == 0)


def epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / metrics.FILE).read_text().splitlines()]


def test_an_epoch_is_one_line_that_holds_all_of_it(tmp_path: Path) -> None:
    metrics.append(run(tmp_path), report(0))
    metrics.append(run(tmp_path), report(1))
    lines = (tmp_path / metrics.FILE).read_text().splitlines()
    assert [EpochReport(**json.loads(line)) for line in lines] == [report(0), report(1)]


@pytest.mark.parametrize(
    ("resumed_at", "kept"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2]), (None, [])]
)
def test_epochs_that_are_trained_again_are_forgotten(
    tmp_path: Path, resumed_at: int | None, kept: list[int]
) -> None:
    for epoch in range(3):
        metrics.append(run(tmp_path), report(epoch))
    metrics.forget_from(run(tmp_path, resumed_at))
    assert epochs(tmp_path) == kept


CUT = ["{", '{"epoch": 2, "trai', '{"epoch": 2', "2", "null", '{"loss": 1}', '"epoch']


@pytest.mark.parametrize("rest", CUT)
def test_a_last_line_that_was_cut_off_is_forgotten(tmp_path: Path, rest: str) -> None:
    for epoch in range(2):
        metrics.append(run(tmp_path), report(epoch))
    with (tmp_path / metrics.FILE).open("a") as file:
        file.write(rest)
    metrics.forget_from(run(tmp_path, 5))
    assert epochs(tmp_path) == [0, 1]
    metrics.append(run(tmp_path), report(2))
    assert epochs(tmp_path) == [0, 1, 2]


def test_a_complete_last_line_without_its_end_is_kept_apart_from_the_next(tmp_path: Path) -> None:
    metrics.append(run(tmp_path), report(0))
    file = tmp_path / metrics.FILE
    file.write_text(file.read_text().rstrip("\n"))
    metrics.forget_from(run(tmp_path, 1))
    metrics.append(run(tmp_path), report(1))
    assert epochs(tmp_path) == [0, 1]


def test_a_run_without_metrics_has_nothing_to_forget(tmp_path: Path) -> None:
    metrics.forget_from(run(tmp_path, 3))
    assert not list(tmp_path.iterdir())
