"""A task that is read by other measures than accuracy shows those: progress, logs, tables, cards."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from torch import Tensor, nn

import robustplug
from robustplug.api import ArrayTask, Component, NoOptions, Quantity, Split, View, result_numbers
from robustplug.cli import main
from robustplug.core.measures import Measure
from robustplug.core.reporting import headlines, stated
from robustplug.core.task import score_name
from robustplug.core.types import Result
from robustplug.exports.card import _robustness
from robustplug.report.board import StudyBoard
from robustplug.report.console import RichReporter, loss_parts, validation_text
from robustplug.report.figures.series import find_series
from robustplug.report.figures.study import study_figures
from robustplug.report.material import read_material
from robustplug.report.pages.compared import comparison_csv
from robustplug.report.tables.comparison import compare
from robustplug.report.tables.study import study_table
from robustplug.studies.study import spread_of
from robustplug.training.validate import selection_score

from ..training.runs import offered
from .runs import bits, pgd, plain, result, row, run, study

SAID = [
    {"name": "BLEU", "better": "higher", "share": False, "headline": True},
    {"name": "queries", "better": "higher", "share": False, "headline": False},
]


def translated(clean: float, attacked: float) -> Result:
    measures = [
        {"BLEU": Measure(mean, mean - 1, mean + 1, 100), "queries": Measure(5.0, 4.0, 6.0, 100)}
        for mean in (clean, attacked)
    ]
    rows = row("clean", bits(1), measures=measures[0]), pgd(bits(60), measures=measures[1])
    return result(*rows, quantities=SAID)


def test_the_numbers_of_a_result_are_its_headlines_or_its_accuracies() -> None:
    found = translated(31.5, 12.25)
    assert [quantity.name for quantity in headlines(found)] == ["BLEU"]
    assert result_numbers(found) == {"test/clean/BLEU": 31.5, "test/pgd (steps=10)/BLEU": 12.25}
    assert result_numbers(plain(90, 40)) == {"test/clean": 0.9, "test/pgd (steps=10)": 0.4}
    nobody = row("clean", bits(1), measures={"BLEU": Measure(float("nan"), 0.0, 0.0, 0)})
    assert stated(nobody, headlines(found)) == {}


def test_comparisons_have_the_measures_and_no_accuracies(tmp_path: Path) -> None:
    cell = study(tmp_path / "s", {"one": [translated(30.0, 10.0), translated(32.0, 11.0)]})
    found = compare([run(tmp_path / "a", translated(31.5, 12.25)), cell])
    (group,) = found.groups
    assert (group.measured, group.columns, group.robust) == (True, (), None)
    lines = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert {line["accuracy"] for line in lines} == {""}
    assert [(line["run"], line["row"], line["measure"], line["value"], line["low"]) for line in lines] == [
        ("a", "clean", "BLEU", "31.5", "30.5"),
        ("one", "clean", "BLEU", "31.0", ""),
        ("a", "pgd (steps=10)", "BLEU", "12.25", "11.25"),
        ("one", "pgd (steps=10)", "BLEU", "10.5", ""),
    ]
    assert [line["best"] for line in lines] == ["1", "0", "1", "0"]


def test_the_model_card_states_the_measures(tmp_path: Path) -> None:
    text = "\n".join(_robustness(read_material(run(tmp_path / "a", translated(31.5, 12.25)))))
    assert "BLEU" in text
    assert "31.50" in text
    assert "accuracy" not in text
    assert "accuracy" in "\n".join(_robustness(read_material(run(tmp_path / "b", plain(90, 40)))))


def test_studies_have_columns_and_figures_of_the_measures(tmp_path: Path) -> None:
    spreads = {"clean: BLEU": spread_of([31.5, 30.5]), "pgd: BLEU": spread_of([12.0])}
    cell = {"name": "a", "labels": {"m": "a"}, "runs": [], "rows": {}, "measures": spreads}
    body = {
        "name": "s",
        "base": "b",
        "axes": [{"name": "m", "labels": ["a"], "numbers": None}],
        "seeds": [0, 1],
        "rows": [],
        "measures": list(spreads),
        "cells": [cell],
    }
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(study_table(body))
    assert "31.00 ± 0.71" in (text := console.export_text())
    assert "%" not in text
    assert [path.name for path in study_figures(body, tmp_path)] == ["study-bleu.png"]
    assert "accuracy" not in (tmp_path / "study-bleu.svg").read_text()
    assert list(study_figures({**body, "measures": []}, tmp_path)) == []
    file = io.StringIO()
    board = StudyBoard(Console(file=file, width=120))
    done: Any = SimpleNamespace(
        run=SimpleNamespace(name="a"), status="finished", reason="", seconds=None, accuracies={},
        measures={"clean: BLEU": 31.5},
    )  # fmt: skip
    board.plan([done], 1)
    board.done(1, done)
    assert "clean: BLEU 31.5" in file.getvalue()


def test_no_curve_of_accuracies_is_drawn() -> None:
    rows = [pgd(bits(60), steps) for steps in (1, 2, 3)]
    rows = [row("clean", bits(90)), *(each.__class__(**{**vars(each), "chain": ""}) for each in rows)]
    assert len(find_series({"": result(*rows)}, "steps")) == 1
    assert find_series({"": result(*rows, quantities=SAID)}, "steps") == []


def test_progress_names_the_score() -> None:
    assert loss_parts({"loss": 1.0, "exact match/adv": 0.125}, "exact match") == (
        "loss 1.000 · adv exact match 12.5%"
    )
    found = {"BLEU": 31.4, "exact match/clean": 0.012, "exact match/robust": 0.5}
    assert (
        validation_text(found, "exact match") == "BLEU 31.4, clean exact match 1.2%, robust exact match 50.0%"
    )
    assert selection_score("robust", 0, found) == 0.5
    assert selection_score("robust", 0, {"clean": 0.9, "robust": 0.4}) == 0.4
    assert selection_score("robust", 0, {"BLEU": 31.4}) is None


class Counted(ArrayTask):
    """Measure brightness, in the place of the accuracy."""

    quantities = (Quantity("brightness", headline=True),)
    score_name = "luck"

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        return {"brightness": view.x.flatten(1).mean(1)}


def counted(_: object) -> Counted:
    import torch

    x, y = torch.rand(24, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    parts: dict[Split, Any] = {"train": (x, y), "validation": (x, y), "test": (x, y)}
    return Counted(parts, default_model="small-cnn")


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    tables = {
        "task": {"use": "counted"},
        "method": {"use": "erm"},
        "train": {"epochs": 2, "batch_size": 12},
        "validate": {"attack": {"use": "fgsm"}},
        "evaluate": {"attack": [{"use": "fgsm"}], "vicinity": {"use": "linf", "eps": 0.1}},
    }
    file = io.StringIO()
    with (
        offered("task", Component("counted", f"{__name__}:counted", NoOptions, "counts")),
        RichReporter(Console(file=file, width=200)) as reporter,
    ):
        found = robustplug.train(
            tables,
            model=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
            out=tmp_path / "run",
            reporter=reporter,
        )
        shown = CliRunner().invoke(main, ["compare", str(tmp_path / "run"), "--csv", str(tmp_path / "c.csv")])
    return found, file.getvalue(), shown.output, (tmp_path / "c.csv").read_text()


def test_a_run_logs_prints_and_compares_what_its_task_is_read_by(trained: Any) -> None:
    found, progress, compared, table = trained
    last = found.history[-1]
    assert "luck/clean" in last.train
    assert {"luck/clean", "luck/robust", "brightness"} <= last.validation.keys()
    assert "clean luck" in progress
    assert "acc " not in progress
    assert found.result.meta["worst_cases"] == []
    assert "brightness" in compared
    assert "ccuracy" not in compared
    assert ",brightness," in table
    assert set(result_numbers(found.result)) == {"test/clean/brightness", "test/fgsm/brightness"}
    best = max(range(2), key=lambda at: found.history[at].validation["luck/robust"])
    assert found.history[best].best


def test_a_task_with_headlines_and_no_name_has_a_score() -> None:
    class Nameless(ArrayTask):
        quantities = Counted.quantities

    parts = counted(None)._data
    assert score_name(Nameless(dict(parts))) == "score"
    assert score_name(ArrayTask(dict(parts))) == "accuracy"
