"""The cards show the numbers of benchmarks/thesis.json, and its tables refuse and count what they must."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import thesis

import robustplug
from robustplug.recipe.toml.files import bundled_recipes, bundled_suites

TABLE = {"rows": ["none", "attack"], "plain": "none", "columns": {"PAR %": 1}}


def row(
    value: float | None, forwards: float = 9.0, failed: str = "", changed: float | None = None
) -> dict[str, Any]:
    return {"failed": failed, "forwards": forwards, "measures": {"PAR %": value, "words changed": changed}}


def seeds(*attacked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(seed): {"none": row(50.0, 3.0), "attack": each} for seed, each in enumerate(attacked)}


def test_the_cards_show_the_numbers_of_at_least_three_seeds() -> None:
    for path, text in thesis.cards().items():
        assert path.read_text(encoding="utf-8") == text, path
    for name, numbers in thesis.read_numbers().items():
        assert numbers["made"].startswith(f"`python benchmarks/thesis.py {name} ")
        assert all(len(each) >= thesis.FEWEST for each in numbers["tables"].values())


def test_the_plans_name_what_exists() -> None:
    for plan in thesis.read_plans().values():
        trained = [each["recipe"] for each in plan["train"]]
        assert set(trained) <= set(bundled_recipes())
        for table in plan["table"]:
            assert table["model"] in trained
            suite = tomllib.loads(bundled_suites()[table["suite"]].read_text(encoding="utf-8"))
            assert set(table["rows"]) <= {"clean", *(each["label"] for each in suite["row"])}
            assert set(table.get("thesis", {})) <= set(table["rows"])
            assert table.get("plain", table["rows"][0]) in table["rows"]


def test_agents_are_those_of_the_same_seed() -> None:
    text = 'name = "x"\n[a]\nfrom = "runs/sv"\n[[b]]\nattack = { agent = "runs/rl", use = "partner" }\n'
    assert thesis.located(text, Path("out") / "3") == {
        "name": "x",
        "a": {"from": str(Path("out/3/sv"))},
        "b": [{"attack": {"agent": str(Path("out/3/rl")), "use": "partner"}}],
    }


def test_a_plan_changes_the_options_that_a_row_sets() -> None:
    rows = [
        {"label": "a", "attack": {"use": "rl-attack", "epochs": 6}},
        {"label": "b", "attack": {"use": "reactive-attack"}},
        {"label": "c", "attack": {"use": "rl-attack", "epochs": 6}},
    ]
    assert thesis.rows_of({"rows": ["a", "b"], "attack": {"epochs": 1}}, {"row": rows}) == [
        {"label": "a", "attack": {"use": "rl-attack", "epochs": 1}},
        rows[1],
    ]
    assert thesis.rows_of({"rows": ["c"]}, {"row": rows}) == [rows[2]]


def test_a_table_has_means_and_deviations_over_seeds() -> None:
    lines = thesis.lines_of(TABLE, seeds(row(60.0), row(70.0), row(80.0)))
    assert lines[-1] == "| attack | 70.0 ± 10.0 | 9 ± 0 | 0 of 3 |"


def test_failed_seeds_are_counted_and_leave_the_mean() -> None:
    lines = thesis.lines_of(TABLE, seeds(row(60.0), row(None, failed="invalid"), row(80.0)))
    assert lines[-1] == f"| attack | 70.0 ± {math.sqrt(200):.1f} | 9 ± 0 | 1 of 3 |"


@pytest.mark.parametrize(
    ("idle", "why"),
    [
        (row(60.0, 3.0), "it asked the model no more than without an attack"),
        (row(60.0, changed=0.0), "it changed no word"),
    ],
)
def test_a_row_whose_attack_was_not_at_work_is_refused(idle: dict[str, Any], why: str) -> None:
    lines = thesis.lines_of(TABLE, seeds(row(60.0), idle, row(80.0)))
    assert lines[-1] == f"| attack | refused: {why} |  | 0 of 3 |"


def test_a_killed_command_does_not_make_a_table_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"name": "t", "suite": "seq2sick", "rows": ["1-keyword"], "model": "m", "samples": 1, "batch": 1}
    means = {"success %": {"mean": 60.0, "count": 4}, "words changed": {"mean": None, "count": 0}}
    passes = {"forwards": 9.0, "backwards": 8.0, "prepared": 0}
    rows = [{"name": "1-keyword", "skipped": "", "accuracy": 0.4, **passes, "measures": means}]
    (tmp_path / "evaluated-t").mkdir()
    (tmp_path / "evaluated-t" / "seq2sick.json").write_text(json.dumps({"attacks": rows}), encoding="utf-8")
    (tmp_path / "m").mkdir()
    training = {"mechanism": {"moved": 0.1}}
    finished = tmp_path / "m" / "result.json"
    finished.write_text(json.dumps({"meta": {"training": training}}), encoding="utf-8")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(robustplug, "evaluate", never)
    monkeypatch.setattr(robustplug, "train", never)
    thesis.train({"train": [{"recipe": "m"}]}, 0, tmp_path)
    measured = {"success %": 60.0, "words changed": None}
    kept = {"failed": "", **passes, "measures": measured}
    assert thesis.attacked(table, 0, tmp_path) == {"1-keyword": kept}
    shown = thesis.attacked({**table, "columns": {"accuracy %": 1}}, 0, tmp_path)["1-keyword"]
    assert shown["measures"] == {**measured, "accuracy %": 40.0}
    training["mechanism"]["moved"] = 0.0
    finished.write_text(json.dumps({"meta": {"training": training}}), encoding="utf-8")
    with pytest.raises(SystemExit, match="m was not at work: moved did not move"):
        thesis.train({"train": [{"recipe": "m"}]}, 0, tmp_path)


@pytest.mark.slow
def test_a_plan_is_made_for_every_seed(tmp_path: Path) -> None:
    quick = ["train.epochs=1", "task.sentences=200", "validate.samples=8", "evaluate.samples=8"]
    table = {
        "name": "t",
        "suite": "seq2sick",
        "rows": ["Non-overlap"],
        "model": "seq2seq-synthetic",
        "samples": 4,
        "batch": 4,
        "columns": {"success %": 1},
    }
    plan = {"train": [{"recipe": "seq2seq-synthetic", "set": quick}], "table": [table]}
    found = {}
    for seed in (0, 1):
        thesis.train(plan, seed, tmp_path / str(seed))
        found[str(seed)] = thesis.attacked(table, seed, tmp_path / str(seed))
        again = thesis.attacked(table, seed, tmp_path / str(seed))
        assert again == found[str(seed)]
    weights = [(tmp_path / seed / "seq2seq-synthetic" / "model.safetensors").read_bytes() for seed in found]
    assert weights[0] != weights[1]
    assert all(rows["Non-overlap"]["forwards"] > 1 for rows in found.values())
    assert "± " in thesis.lines_of(table, found)[-1]
