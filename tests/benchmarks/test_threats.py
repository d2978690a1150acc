"""The comparison of attacks in each threat model: its tables, its verdict, and what it asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import threats
from threats import ROWS, Measured, as_json, from_json, page, weaker

from robustplug.api import Cost, Use, build
from robustplug.plugin.host import registry
from robustplug.recipe.clashes import misfit
from robustplug.recipe.convert import resolve

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ROWS)
def test_our_attacks_keep_to_the_threat_model_and_to_the_passes(name: str) -> None:
    row = ROWS[name]
    threat = resolve(Use(row.threat["use"], {k: v for k, v in row.threat.items() if k != "use"}), "vicinity")
    for table in row.ours:
        attack = resolve(Use(table["use"], {k: v for k, v in table.items() if k != "use"}), "perturbation")
        assert misfit(attack, threat, registry()) == ""
        cost = build(attack, "perturbation").cost(Cost(0, 0))
        assert not cost.known or cost.forwards <= row.passes


def test_the_page_shows_the_best_of_each_side_and_what_failed() -> None:
    found = {
        "linf": Measured({"a": [0.5, 0.4], "b": [0.6, 0.6]}, {"c": [0.5, 0.5]}, {"a": 99, "b": 9, "c": 100}),
        "patch": Measured({"a": [0.2]}, {}, {"a": 7}, {"d": "ImportError: no d"}),
    }
    text = page(found, 2, 10)
    assert "| linf | a | 45.0% | 99 | c | 50.0% | 100 |" in text
    assert "| patch | a | 20.0% | 7 | none |  |  |" in text
    assert "- patch, d: ImportError: no d" in text
    assert weaker(found) == []
    found["linf"].others["c"] = [0.4, 0.4]
    assert weaker(found) == ["linf"]
    assert weaker({"l1": Measured({}, {"c": [0.1]})}) == ["l1"]


def test_the_page_of_the_docs_is_made_of_what_was_measured() -> None:
    found = {"l0": Measured({"a": [0.5]}, {}, {"a": 7}, {"d": "ImportError: no d"})}
    assert from_json(as_json(found, 2, 10)) == (found, 2, 10)
    kept = ROOT / "benchmarks" / "threats.json"
    made = page(*from_json(kept.read_text(encoding="utf-8"))) if kept.exists() else page({})
    assert (ROOT / "docs" / "threats.md").read_text(encoding="utf-8") == made
    assert "Not measured yet." in page({})


def test_the_command_writes_both_files_and_names_what_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def measured(names: list[str], seeds: int, count: int) -> dict[str, Measured]:
        asked.append((names, seeds, count))
        return {name: Measured({"a": [0.5]}, {"b": [0.6]}, {"a": 7, "b": 8}) for name in names}

    monkeypatch.setattr(threats, "measure", measured)
    out, made = tmp_path / "t.json", tmp_path / "t.md"
    files = ["--out", str(out), "--page", str(made)]
    monkeypatch.setattr(sys, "argv", ["threats.py", "l0", "--seeds", "1", "--samples", "4", *files])
    threats.main()
    assert asked == [(["l0"], 1, 4)]
    assert made.read_text(encoding="utf-8") == page(*from_json(out.read_text(encoding="utf-8")))
    assert "| l0 | a | 50.0% | 7 | b | 60.0% | 8 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["threats.py", "l3"])
    with pytest.raises(SystemExit):
        threats.main()
    assert "no threat model 'l3'; there are linf, l2" in capsys.readouterr().err
