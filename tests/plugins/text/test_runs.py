"""Runs on texts: trained, evaluated, written as records, audited."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import robustplug
from robustplug.api import TextRecord, words_changed
from robustplug.cli import main
from robustplug.recipe.load import read_recipe, read_suite

from .small import vectors

SUITE = """
schema = 1
name = "bounds"

[[row]]
label = "one word"
attack = { use = "textfooler" }
vicinity = { use = "word-substitution", eps = 1.0, embeddings = "VECTORS" }

[[row]]
label = "6 queries"
attack = { use = "textfooler", queries = 6 }
vicinity = { use = "word-substitution", embeddings = "VECTORS" }
"""


def recipe(folder: Path, method: str = "freelb", **tables: Any) -> dict[str, Any]:
    threat = {"use": "word-substitution", "embeddings": str(vectors(folder))}
    return {
        "name": "small",
        "task": {"use": "text", "data": "synthetic", "reviews": 200},
        "model": {"use": "word-cnn", "width": 12, "filters": 8},
        "method": {"use": method},
        "optimizer": {"use": "adamw", "lr": 0.02},
        "train": {"epochs": 6, "batch_size": 35, "device": "cpu", "select": "clean"},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"vicinity": threat, "samples": 30, "attack": [{"use": "textfooler"}]},
        **tables,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    return Path(robustplug.train(recipe(root), out=root / "run").folder)


def test_a_run_reports_what_the_field_reads(folder: Path) -> None:
    body = json.loads((folder / "result.json").read_text())
    clean, attack = body["attacks"]
    assert clean["accuracy"] > 0.7
    assert 0 < attack["broken"] <= attack["attempted"] < 30
    measures = attack["measures"]
    assert set(measures) == {"success %", "words changed %", "queries"}
    assert measures["success %"]["mean"] == pytest.approx(100 * attack["broken"] / attack["attempted"])
    # The interval of a share is Wilson's, whose ends differ even where all samples agree.
    assert 0 < measures["success %"]["low"] < measures["success %"]["high"] <= 100
    assert measures["queries"]["mean"] * attack["attempted"] == pytest.approx(
        attack["forwards"] * 30 - attack["attempted"]  # the rest is the one judged output of each sample
    )
    assert attack["threat"]["use"] == "word-substitution"
    mechanism = body["meta"]["training"]["mechanism"]
    assert 0 < mechanism["shift"] <= 0.5


def test_a_suite_writes_texts_in_the_columns_of_textattack(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bounds.toml").write_text(SUITE.replace("VECTORS", str(vectors(tmp_path))))
    arguments = [
        "evaluate",
        str(folder),
        "--suite",
        str(tmp_path / "bounds.toml"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(main, [*arguments, "--quiet"])
    assert done.exit_code == 0, done.output
    files = {path.name: path for path in (tmp_path / "out").rglob("*-texts/*")}
    assert {path.partition(".")[2] for path in files} == {"csv", "json", "html"}
    rows = json.loads(files["one-word.json"].read_text())
    assert set(rows[0]) == set(TextRecord._fields)
    for row in rows:
        changed = words_changed(row["original_text"], row["perturbed_text"])
        assert changed == 1 if row["result_type"] == "Successful" else changed <= 1
        assert (row["perturbed_output"] == row["ground_truth_output"]) == (row["result_type"] == "Failed")
        assert row["original_output"] == row["ground_truth_output"] in ("negative", "positive")
        assert (row["perturbed_score"] > 0.5) == (row["result_type"] == "Successful")
    with files["one-word.csv"].open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == list(TextRecord._fields)
    assert len(lines) == len(rows)
    assert any("[[" in line[1] for line in lines)
    assert "<ins>" in files["one-word.html"].read_text()
    assert {row["num_queries"] for row in json.loads(files["6-queries.json"].read_text())} <= set(range(7))


def test_attacks_along_gradients_are_refused_with_the_reason(folder: Path) -> None:
    for row in robustplug.evaluate(folder, samples=4, attacks=["fgsm", "pgd"]).attacks[1:]:
        assert "use an attack" in row.skipped


def test_an_audit_says_that_it_cannot_tell(folder: Path) -> None:
    audit = robustplug.audit(folder)
    assert audit.grade == "U"


def test_the_search_is_also_a_perturbation_to_train_with(tmp_path: Path) -> None:
    method = {"use": "erm", "perturbation": {"use": "textfooler", "candidates": 3}}
    made = recipe(tmp_path)
    made["method"] = {**method, "vicinity": made["evaluate"]["vicinity"]}
    made["task"] = {**made["task"], "reviews": 40}
    made["train"] = {**made["train"], "epochs": 1, "batch_size": 14}
    result = robustplug.train(made, out=tmp_path / "run")
    assert (Path(result.folder) / "result.json").is_file()


def test_bundled_recipes_and_suite_are_valid() -> None:
    for name in ("text", "freelb", "smart"):
        assert read_recipe(Path("recipes") / f"{name}.toml").task.name == "text"
    assert len(read_suite("text", {"use": "word-substitution"}).row) == 6


def test_models_of_images_are_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path, "erm", model={"use": "small-cnn"})
    with pytest.raises(Exception, match=r"small-cnn"):
        robustplug.train(made, out=tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()
