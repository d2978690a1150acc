"""robustplug tune: what is wrong is said at once, and what is found is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.cli import tune as command
from robustplug.studies.tuning import search
from robustplug.studies.tuning.trial import Trial

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
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    (tmp_path / "mine.toml").write_text(FILE)
    result = cli("tune", str(tmp_path / "mine.toml"))
    assert result.exit_code == 2
    assert 'pip install "robustplug[tune]"' in result.output


def test_the_result_is_printed_and_the_page_written(
    cli: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")

    def carry_out(number: int, values: dict[str, Any], *rest: Any) -> Trial:
        return Trial(number, values, "finished", {1: (0.9, 0.1 * number)}, 1, 1, 10.0, 1.0)

    monkeypatch.setattr(search, "carry_out", carry_out)
    monkeypatch.setattr(search, "_final", lambda *_: {"clean": 0.875, "autoattack": 0.25})
    (tmp_path / "mine.toml").write_text(FILE)
    result = cli("tune", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "trial 0: finished, method.beta = 6" in result.output
    assert "87.5 %" in result.output
    assert (tmp_path / "out" / "report" / "index.html").is_file()
