"""The reports of the epochs survive damage to any one of their files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robustplug.core.types import EpochReport
from robustplug.runs.history import COPIES, append_report, metrics_line, read_reports, write_reports

RUN = "a" * 32


def report(epoch: int) -> EpochReport:
    return EpochReport(epoch, {"loss": 1.0 / (epoch + 1), "ε": 0.5}, {"clean": 0.5}, 0.1, 1.5, epoch == 0)


REPORTS = [report(epoch) for epoch in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for each in REPORTS:
        append_report(tmp_path, RUN, each)
    return tmp_path


def change(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))


def test_a_report_reads_back_and_is_one_line_of_the_metrics(folder: Path) -> None:
    assert read_reports(folder, RUN, 3) == (REPORTS, [])
    assert read_reports(folder, RUN, 2) == (REPORTS[:2], [])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [EpochReport(**json.loads(line)) for line in lines] == REPORTS
    assert write_reports(folder, RUN, REPORTS) == []


def test_numbers_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    odd = EpochReport(0, {"loss": float("inf"), "other": float("nan")}, {}, 0.1, 1.0, best=False)
    append_report(tmp_path, RUN, odd)
    ((found,), notes) = read_reports(tmp_path, RUN, 1)
    assert str(found) == str(odd)
    assert not notes
    assert b"NaN" not in (tmp_path / "metrics.jsonl").read_bytes()


EDITS: list[Callable[[list[bytes]], list[bytes]]] = [
    lambda lines: [],
    lambda lines: lines[1:],
    lambda lines: [lines[0], lines[2]],
    lambda lines: [lines[0], lines[1].replace(b"0.5", b"0.6", 1), lines[2]],
    lambda lines: [lines[0], b"\xff" + lines[1], lines[2]],
    lambda lines: [lines[0], lines[1][:40] + b"\n", lines[2]],
    lambda lines: [lines[0], b"[" * 5000 + b"\n", lines[2]],
    lambda lines: [lines[0], lines[1].replace(RUN.encode(), b"b" * 32), lines[2]],
]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", COPIES)
def test_damage_to_one_copy_loses_nothing(
    name: str, edit: Callable[[list[bytes]], list[bytes]], folder: Path
) -> None:
    change(folder / "checkpoints" / name, edit)
    found, (note,) = read_reports(folder, RUN, 3)
    assert found == REPORTS
    assert f"{name} lacks the report" in note
    assert "the other copy is used" in note
    assert write_reports(folder, RUN, REPORTS) == []
    assert read_reports(folder, RUN, 3) == (REPORTS, [])


def test_damage_to_different_lines_of_both_copies_loses_nothing(folder: Path) -> None:
    change(folder / "checkpoints" / COPIES[0], lambda lines: lines[:1])
    change(folder / "checkpoints" / COPIES[1], lambda lines: lines[1:])
    found, notes = read_reports(folder, RUN, 3)
    assert found == REPORTS
    assert len(notes) == 2


def test_what_neither_copy_holds_is_named(folder: Path) -> None:
    for name in COPIES:
        change(folder / "checkpoints" / name, lambda lines: [lines[0], lines[2]])
    found, notes = read_reports(folder, RUN, 3)
    assert found == [REPORTS[0], REPORTS[2]]
    assert notes[-1] == "the run goes on without the reports of epoch 2, which neither copy holds"


def test_reports_of_another_run_do_not_count(folder: Path) -> None:
    found, notes = read_reports(folder, "b" * 32, 3)
    assert not found
    assert "epochs 1, 2, 3" in notes[-1]


def test_half_a_line_does_not_spoil_the_next(folder: Path) -> None:
    for path in (*(folder / "checkpoints" / name for name in COPIES), folder / "metrics.jsonl"):
        with path.open("ab") as file:
            file.write(b'{"epoch": 3, "tra')
    append_report(folder, RUN, report(3))
    assert read_reports(folder, RUN, 4) == ([*REPORTS, report(3)], [])
    assert (folder / "metrics.jsonl").read_bytes().endswith(b"\n" + metrics_line(report(3)))


METRICS: list[tuple[Callable[[list[bytes]], list[bytes]], bool]] = [
    (lambda lines: lines, False),
    (lambda lines: [*lines, metrics_line(report(3)), b'{"epoch": 4'], False),  # trained again
    (lambda lines: [lines[0], lines[1].replace(b"0.5", b"0.6", 1), lines[2]], True),
    (lambda lines: [lines[0], lines[2]], True),
    (lambda lines: [*lines[:2], b"\xff\xfe\n", lines[2]], True),
    (lambda lines: [], True),
]


@pytest.mark.parametrize(("edit", "changed"), METRICS)
def test_metrics_are_made_anew_and_changed_ones_are_kept(
    edit: Callable[[list[bytes]], list[bytes]], changed: bool, folder: Path
) -> None:
    path, expected = folder / "metrics.jsonl", (folder / "metrics.jsonl").read_bytes()
    change(path, edit)
    before = path.read_bytes()
    notes = write_reports(folder, RUN, REPORTS)
    assert path.read_bytes() == expected
    assert bool(notes) == changed == (folder / "metrics-changed.jsonl").exists()
    if changed:
        assert (folder / "metrics-changed.jsonl").read_bytes() == before
        assert "metrics.jsonl was damaged or changed: it is kept as" in notes[0]


def test_missing_metrics_are_made_anew(folder: Path) -> None:
    expected = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").unlink()
    assert "is missing" in write_reports(folder, RUN, REPORTS)[0]
    assert (folder / "metrics.jsonl").read_bytes() == expected


def test_an_epoch_costs_the_same_however_many_came_before(tmp_path: Path) -> None:
    write_reports(tmp_path, RUN, [report(epoch) for epoch in range(1000)])
    few = tmp_path / "few"
    few.mkdir()

    def seconds(where: Path) -> float:
        times = []
        for epoch in range(1000, 1020):
            began = time.perf_counter()
            append_report(where, RUN, report(epoch))
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(tmp_path) < 5 * seconds(few) + 0.005
