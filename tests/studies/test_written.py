"""When a study writes its result: after each of few runs, and now and then of many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustplug.recipe.study import read_study
from robustplug.runs.folder import write_json
from robustplug.studies import study as studies
from robustplug.studies.study import SilentStudy, run_study
from robustplug.studies.work import Commands

from .test_cells import case, study


@pytest.mark.parametrize(("runs", "most"), [(4, 4), (200, 20)])
def test_the_result_is_written_twenty_times_at_most_until_all_runs_are_done(
    runs: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, written = list[Path](), list[int]()

    def count(path: Path, body: Any) -> None:
        written.append(len(trained))
        write_json(path, body)

    monkeypatch.setattr(studies, "write_json", count)
    commands = Commands(train=lambda recipe, out, **_: trained.append(out), evaluate=print, audit=print)
    found = read_study(study(case("only", {}), seeds=list(range(runs))))
    run_study(found, tmp_path / "study", commands, SilentStudy())
    assert len(trained) == len({*trained}) == runs
    *before, last = written
    assert len(before) == most
    # Evenly: a study that is killed has lost no more than a twentieth of its table, and no run.
    assert before == [round(runs / most * n) for n in range(1, most + 1)]
    assert last == runs
    (cell,) = json.loads((tmp_path / "study" / "result.json").read_text())["cells"]
    assert [run["seed"] for run in cell["runs"]] == list(range(runs))
