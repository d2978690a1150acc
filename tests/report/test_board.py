from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from robustplug.core.types import EpochReport, Progress, RunInfo
from robustplug.report.board import Line, StudyBoard, duration, left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_follows_from_the_runs_that_ended() -> None:
    done = [Line("a", "done", seconds=10), Line("b", "failed", seconds=20)]
    waiting = [Line("c"), Line("d"), Line("e")]
    assert left([*done, *waiting], 1, 100) == (45, False)
    running = [Line("r", "running", began=95), Line("s", "running", began=50)]
    # 10 s of the first are left, none of the second; three wait, in two places.
    assert left([*done, *waiting, *running], 2, 100) == ((10 + 45) / 2, False)
    assert left([*done, running[0]], 8, 100) == (10, False)


def test_before_one_has_ended_trainings_give_a_lower_bound() -> None:
    half = Line("a", "running", began=90, share=0.5)
    assert left([half, Line("b")], 1, 100) == (10 + 20, True)
    assert left([Line("a", "running", began=90), Line("b")], 1, 100) == (None, True)
    # What was done before the study went on took no time that is known.
    assert left([Line("a", "done"), Line("b")], 1, 100) == (None, True)


def outcome(name: str, status: str = "not started", **more: Any) -> Any:
    known = {"status": status, "reason": "", "accuracies": {}, "measures": {}, "seconds": None, **more}
    return SimpleNamespace(run=SimpleNamespace(name=name), **known)


def test_the_table_says_what_runs_failed_waits_and_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("robustplug.report.board.time.perf_counter", lambda: now[0])
    file = io.StringIO()
    board = StudyBoard(Console(file=file, width=120, height=12))
    names = ["old", "[bold]x", "broken", "now", *(f"later-{number}" for number in range(30))]
    board.plan([outcome("old", "finished"), *map(outcome, names[1:])], 2)
    board.start(2, "[bold]x")
    now[0] = 110
    board.done(2, outcome("[bold]x", "finished", accuracies={"clean": 0.912}, seconds=7.0))
    board.start(3, "broken")
    board.done(3, outcome("broken", "failed", reason="no [memory]"))
    reporter = board.start(4, "now")
    reporter.begin(RunInfo("n", "f", "cat", "digits", "small-cnn", 4), Progress(0, 4, 0, 10))
    reporter.epoch(EpochReport(0, {}, {"clean": 0.9}, 0.1, 1.0, True), 4)
    reporter.batch(Progress(1, 4, 5, 10), {"loss": 1.5})
    assert board.lines[3].share == pytest.approx(0.375)
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(board.render())
    text = console.export_text()
    head, *rows = [line for line in text.splitlines() if line.strip()]
    assert head.startswith("1 running · 1 failed · 30 waiting · 2 done · 10 s so far · ")
    assert "left" in head
    assert re.match(r"running +now ", rows[0])
    assert "epoch 2/4 · loss 1.500 · validation clean 90.0%" in rows[0]
    assert re.match(r"failed +broken ", rows[1])
    assert "no [memory]" in rows[1]
    assert [row.split()[0] for row in rows] == ["running", "failed"] + ["waiting"] * 4
    assert len(rows) <= board.console.height - 6
    reporter.attack("pgd", 3, 40)
    assert board.lines[3].note == "evaluating: pgd 3/40"
    printed = file.getvalue()
    assert "2/34 [bold]x · clean 91.2% · trained in 7.0 s" in printed
    assert "3/34 broken · failed: no [memory]" in printed
    reporter.warn("careful")
    assert "now: careful" in file.getvalue()


def test_a_terminal_has_a_live_table_and_it_ends() -> None:
    file = io.StringIO()
    with StudyBoard(Console(file=file, width=80, height=20, force_terminal=True)) as board:
        board.plan([outcome("a"), outcome("b")], 1)
        board.start(1, "a")
        assert board._live is not None
    assert board._live is None
    assert "1 running · 1 waiting" in file.getvalue()
    with StudyBoard(Console(file=io.StringIO(), force_terminal=True)) as board:
        board.plan([outcome("a", "finished")], 1)
        assert board._live is None
