"""robustplug tune: what is wrong is said at once, and what is found is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustplug.studies.tuning import search, tuned
from robustplug.studies.tuning.kept import Trial

from .conftest import Invoke

FILE = """
base = "trades"
passes = 40
option = [{ key = "method.beta", low = 1, high = 8 }]
[set]
train.epochs = 1
"""


def test_all_problems_of_a_file_are_said_at_once(cli: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'base = "trades"\npasses = 0\n[[option]]\nkey = "method.betta"\n[[option]]\nkey = "method.beta"\n'
    )
    result = cli("tune", str(tmp_path / "mine.toml"))
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    for said in ("mine.toml:2: passes", "mine.toml:4: option.0.key", 'did you mean "beta"', "give high"):
        assert said in result.output
    assert cli("tune", str(tmp_path / "absent.toml")).exit_code == 2


def test_without_optuna_the_command_says_how_to_get_it(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "find_spec", lambda name: None)
    (tmp_path / "mine.toml").write_text(FILE)
    result = cli("tune", str(tmp_path / "mine.toml"))
    assert result.exit_code == 2
    assert 'pip install "robustplug[tune]"' in result.output


def test_the_result_is_printed_and_the_page_written(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")

    def carry_out(number: int, values: dict[str, Any], *rest: Any) -> Trial:
        rest[2].mkdir(parents=True)
        return Trial(number, values, "finished", {1: (0.9, 0.1 * number)}, 1, 1, 10.0, 1.0)

    monkeypatch.setattr(search, "carry_out", carry_out)
    monkeypatch.setattr(search, "_final", lambda *_: {"clean": 0.875, "autoattack": 0.25})
    (tmp_path / "mine.toml").write_text(FILE)
    result = cli("tune", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "trial 0: finished, method.beta = 6" in result.output
    assert "87.5 %" in result.output
    page = tmp_path / "out" / "report" / "index.html"
    assert "What mattered" in page.read_text()
    # The page is made anew by its own command, also elsewhere.
    assert cli("report", str(tmp_path / "out"), "--out", str(tmp_path / "page")).exit_code == 0
    assert (tmp_path / "page" / "index.html").read_text() == page.read_text()
    found = tuned.read_tuned(tmp_path / "out")
    assert [(each.number, each.clean, each.robust) for each in found.front] == [(1, 0.9, 0.1)]
    assert [(each.number, each.tested) for each in found.finalists] == [
        (number, tuned.Tested(0.875, 0.25)) for number in (0, 1)
    ]
    assert found.finalists[0].base
    assert found.best in found.finalists
    body = json.loads((tmp_path / "out" / "result.json").read_text())
    (tmp_path / "out" / "result.json").write_text(json.dumps({**body, "best": 1 - body["best"]}))
    changed = cli("report", str(tmp_path / "out"))
    assert changed.exit_code == 2
    assert "was changed after it was written; give the tuning's command again" in changed.output
