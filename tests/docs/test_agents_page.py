from __future__ import annotations

from pathlib import Path
from typing import Any

from .blocks import code_blocks

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"


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
