from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .blocks import code_blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "agents.md"


def test_the_example_negotiates_and_agrees(capsys: Any) -> None:
    example, logits = (block for block in code_blocks(PAGE) if block.language == "python")
    known: dict[str, Any] = {}
    exec(compile(example.text, str(PAGE), "exec"), known)
    row = known["result"].attacks[-1]
    assert not row.skipped
    assert row.measures["agree %"].mean == 100
    assert row.measures["target"].mean > 4
    assert row.measures["adversary"].mean > 4
    assert row.measures["turns"].mean > 2
    assert "deal" in row.example
    assert "'agree %': 100.0" in capsys.readouterr().out
    exec(compile(logits.text, str(PAGE), "exec"), known)
    assert callable(known["logits"])


def test_a_language_model_behind_a_server_is_evaluated_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("openai")
    monkeypatch.chdir(tmp_path)
    # The example sets the address; both are put back after the test.
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    page = DOCS / "language-models.md"
    (example,) = (block for block in code_blocks(page) if block.language == "python")
    known: dict[str, Any] = {}
    exec(compile(example.text, str(page), "exec"), known)
    rows = known["result"].attacks[1:]
    assert [row.name for row in rows] == ["partner", "lm-attack"]
    for row in rows:
        assert not row.skipped
        assert row.measures["failed deals %"].mean == 0
        assert row.forwards > 1
    out = capsys.readouterr().out
    assert f"{known['Server'].requests} requests" in out
    assert known["Server"].requests > 10
    # A second evaluation would pay for nothing: all replies are kept.
    assert len(list(Path("evaluations", "replies").rglob("*.json"))) == known["Server"].requests
