"""The benchmark of all methods spreads their schedules over the budget, and refuses idle ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_methods", ROOT / "benchmarks" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_schedule_takes_the_same_share_of_other_epochs(methods: Any) -> None:
    iaat, made_for = methods.method_of("iaat", 0.1)
    assert (iaat["warmup"], made_for) == (5, 25)
    short = methods.paced(iaat, made_for, 5)
    assert (short["warmup"], short["beta"]) == (1, 0.5)
    assert methods.paced(iaat, made_for, 25) == iaat
    cat, made_for = methods.method_of("cat", "1/10")
    assert methods.paced(cat, made_for, 10)["eta"] == pytest.approx(0.0375)
    assert methods.paced(cat, made_for, 3)["eta"] == pytest.approx(0.05)
    trades, made_for = methods.method_of("trades", 0.1)
    assert methods.paced(trades, made_for, 3) == trades


def test_passes_that_depend_on_the_model_are_counted_on_all_samples(methods: Any) -> None:
    assert methods.is_known(methods.method_of("cat", 0.1)[0])
    assert not methods.is_known(methods.method_of("iaat", 0.1)[0])


def test_every_recipe_of_the_benchmark_can_be_paced(methods: Any) -> None:
    for name in methods.METHODS:
        method, made_for = methods.method_of(name, 0.1)
        assert methods.paced(method, made_for, made_for).keys() == method.keys()


def test_a_row_where_nothing_moved_is_refused(methods: Any, tmp_path: Path) -> None:
    cells = []
    for name, mechanism in (("iaat", {"moved": 0.1, "radius": 0.0}), ("cat", {"radius": 0.5}), ("erm", {})):
        training = {
            "epochs": 2,
            "forwards_per_sample": 3.0,
            "backwards_per_sample": 3.0,
            "seconds": 60.0,
            "mechanism": mechanism,
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps({"meta": {"training": training}}))
        accuracies = dict.fromkeys(("clean", "PGD-100×5", "AutoAttack · apgd-ce", "Sign-OPT"), 0.5)
        run = {"status": "finished", "folder": name, "accuracies": accuracies, "audit": {"grade": "A"}}
        cells.append({"labels": {"method": name}, "runs": [run]})
    head, _, *rows = methods.table(tmp_path, {"cells": cells})
    assert "radius did not move" in rows[0]
    assert "| radius 0.5 |" in rows[1]
    assert "| – |" in rows[2]
    assert {row.count("|") for row in rows} == {head.count("|")}
