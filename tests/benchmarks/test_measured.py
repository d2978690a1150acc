"""The tables that benchmarks write into docs/clusters.md: each has its place, and only that changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import launchers
import pytest
import scaling

MEASURED: dict[str, Any] = {
    "local": {"runs": 500, "processes": 2, "own": 500.0, "seconds": 275.0, "queue": 0.0},
    "slurm": {"runs": 20, "processes": 2, "own": 20.0, "seconds": 80.0, "queue": 20.0},
    "list": {"cells": 10648, "seconds": 3.25, "core": 3.0},
}


def parts(module: ModuleType, text: str) -> tuple[str, str, str]:
    """Return what stands before a table, the table and what stands after it."""
    assert text.count(module.BEGIN) == 1
    before, _, rest = text.partition(module.BEGIN)
    table, end, after = rest.partition(module.END)
    assert end, "the place of the table has no end"
    return before, table, after


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put copies of the page and of the numbers in the place of those of the repository."""
    page = tmp_path / "clusters.md"
    assert launchers.PAGE == scaling.PAGE
    page.write_text(scaling.PAGE.read_text())
    for module in (launchers, scaling):
        monkeypatch.setattr(module, "PAGE", page)
        monkeypatch.setattr(module, "NUMBERS", tmp_path / f"{module.__name__}.json")
    return page


def test_what_was_measured_of_a_study_is_written(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _, after = parts(launchers, page.read_text())
    monkeypatch.setattr(launchers, "measure_runs", lambda *asked: MEASURED[asked[-1]])
    monkeypatch.setattr(launchers, "measure_list", lambda *_: MEASURED["list"])
    # One after the other: what was measured before stays.
    runs = ["--runs", "500", "--processes", "2"]
    for words in (runs, [*runs, "--launcher", "slurm"], ["--list", "10000"]):
        monkeypatch.setattr(sys, "argv", ["launchers.py", *words, "--write"])
        launchers.main()
    assert json.loads(launchers.NUMBERS.read_text()) == MEASURED
    table = """| | |
|---|---|
| 500 runs of 1.00 s through `local`, 2 at a time | 275 s: +10.0%, +0.10 s a run |
| 20 runs of 1.00 s through `slurm`, 2 at a time | 80 s: +700.0%, +7.00 s a run, of which 2.0 s as for jobs \
that do nothing |
| `--list` of 10,648 cells | 3.2 s, 3.0 s of a core |
"""
    assert parts(launchers, page.read_text()) == (before, table, after)


def test_what_was_measured_of_updates_is_written(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _, after = parts(scaling, page.read_text())
    cases = {(1, 64): 0.11, (1, 128): 0.21, (2, 128): 0.13, (2, 256): 0.24}
    updates = [
        {"processes": processes, "rows": rows, "seconds": took} for (processes, rows), took in cases.items()
    ]
    found = {"updates": updates, "gradient_bytes": 4_000_000, "exchange_seconds": 0.01}
    monkeypatch.setattr(scaling, "measured", lambda _: found)
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--write"])
    scaling.main()
    table = "\n".join(scaling.lines(json.loads(scaling.NUMBERS.read_text()))) + "\n"
    assert "| 512 (predicted) |" in table
    assert parts(scaling, page.read_text()) == (before, table, after)
