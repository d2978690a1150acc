"""robustplug report, on one tiny run; what a person sees is looked at in a browser where there is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.runs.folder import write_json
from robustplug.runs.manifest import record
from robustplug.runs.result_file import seal_result

from ..report.browser import find_browser, running
from ..report.test_page import EVIL, Outline
from .conftest import Install, Invoke, run_cli

RECIPE = {
    "name": "tiny",
    "task": {"use": "digits", "validation": 64, "test": 1600},
    "model": {"use": "small-cnn", "width": 2, "hidden": 8, "batchnorm": True},
    "method": {"use": "sprout"},
    "train": {"epochs": 3, "batch_size": 64, "device": "cpu"},
    "validate": {"samples": 32, "attack": {"use": "fgsm"}},
    "evaluate": {"samples": 32, "attack": [{"use": "pgd", "steps": 2}, {"use": "fgsm"}]},
}
# Names of figures that are drawn for every run with images and BatchNorm, and that of the method's plugin.
OWN = {
    "accuracy-eps",
    "accuracy-steps",
    "accuracy-restarts",
    "loss-landscape",
    "adversarial-examples",
    "training-accuracy",
    "training-loss",
    "training-rate",
    "training-measures",
    "batchnorm",
    "confusion-clean",
    "confusion-1",
}
AUDIT = {
    "grade": "B",
    "verdict": EVIL,
    "accuracy": 0.5,
    "findings": [
        {"check": EVIL, "verdict": "warning", "measured": {EVIL: 0.5}, "meaning": EVIL, "advice": EVIL}
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run, and let what others write into its folder be hostile."""
    folder = robustplug.train(RECIPE, out=tmp_path_factory.mktemp("runs") / "tiny").folder
    body = json.loads((folder / "result.json").read_text())
    body["meta"]["name"] = EVIL
    row = body["attacks"][1]
    row |= {"example": f"a {EVIL}\n  b", "measures": {EVIL: {"mean": 1.5, "low": 1, "high": 2, "count": 9}}}
    numbers: dict[str, Any] = {"accuracy": None, "right": "", "by_class": [], "confusion": []}
    body["attacks"][2] |= {"skipped": EVIL, **numbers}
    # The last row of the chain that was run has the confusion matrix.
    samples = body["meta"]["classes"]["samples"]
    row["confusion"] = [[0] * len(samples) for _ in samples]
    for at, (right, count) in enumerate(zip(row["by_class"], samples, strict=True)):
        row["confusion"][at][at], row["confusion"][at][at - 1] = right, count - right
    body["audit"] = AUDIT
    write_json(folder / "result.json", seal_result(body, "result", folder))
    (folder / "environment.json").write_text(json.dumps({"python": EVIL, "plugins": {EVIL: EVIL}}))
    record(folder, "environment.json")
    recipe = folder / "recipe.toml"
    recipe.write_text(f"# {EVIL}\n{recipe.read_text()}")
    return folder


@pytest.fixture(scope="module")
def reported(run: Path) -> Path:
    result = run_cli("report", run, "--samples", "8", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(run / "report" / "index.html")
    assert "robustplug hard-label curves" in result.stderr
    return run / "report" / "index.html"


def outline(page: Path) -> Outline:
    return Outline(page.read_text(encoding="utf-8"))


def test_the_page_holds_all_and_links_nothing_outside(run: Path, reported: Path) -> None:
    page = outline(reported)
    heads = [each["id"] for each in page.all("section")]
    assert heads == [
        *("results", "classes", "audit", "robustness", "training", "inside-the-model"),
        *("recipe", "environment", "left-out"),
    ]
    figures = {each["id"].removeprefix("figure-"): each for each in page.all("figure")}
    assert set(figures) == OWN | {"beta"}
    images = page.all("img")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(len(image["alt"]) > 40 for image in images)
    assert [each["href"] for each in page.all("a")] == [f"#{name}" for name in heads]
    for name in set(figures):
        for kind in ("png", "svg"):
            assert (run / "report" / "figures" / f"{name}.{kind}").stat().st_size > 1000
    for text in ("grade B", "one sample", "skipped:", "[method.label_map]", "robustplug hard-label curves"):
        assert text in page.words


def test_whatever_a_run_holds_is_escaped(reported: Path) -> None:
    page = outline(reported)
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    # Title, heading, names of tables, example, measure, reason, audit, environment, recipe.
    assert page.words.count(EVIL) >= 14


@pytest.mark.slow
def test_what_was_measured_is_kept_and_not_measured_again(
    run: Path, reported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = json.loads((run / "report" / "measured.json").read_text())
    assert measured["samples"] == 8
    assert {row["options"]["restarts"] for row in measured["attacks"][1:]} == {1, 2, 4, 8}

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was measured again")

    monkeypatch.setattr("robustplug.run.evaluate", never)
    monkeypatch.setattr("robustplug.run.open_evaluation", never)
    out = run.parent / "saved"
    shutil.copytree(run / "report", out)
    result = run_cli("report", run, "--saved", "--out", out)
    assert result.exit_code == 0, result.output
    assert "left out: figures that have to be computed" in result.stderr
    page = outline(out / "index.html")
    names = {each["id"].removeprefix("figure-") for each in page.all("figure")}
    assert names == OWN | {"beta"}


@pytest.mark.slow
def test_what_takes_long_is_left_out_and_how_to_get_it_is_said(run: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    shutil.copytree(run, slow, ignore=shutil.ignore_patterns("report"))
    body = json.loads((slow / "result.json").read_text())
    body["attacks"][1]["seconds"] = 1e4
    write_json(slow / "result.json", seal_result(body, "result", slow))
    (slow / "figures").mkdir()
    (slow / "figures" / "broken.png").write_bytes(b"\x89PNG")
    shutil.copyfile(run / "report" / "figures" / "beta.png", slow / "figures" / "of-a-command.png")
    result = run_cli("report", slow, "--out", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output
    page = outline(tmp_path / "out" / "index.html")
    assert page.words.count(f"robustplug report {slow} --samples 100") == 3
    assert "the figure broken.png cannot be read" in page.words
    names = {each["id"].removeprefix("figure-") for each in page.all("figure")}
    assert "of-a-command" in names
    assert "accuracy-eps" not in names


HOOK = """
from robustplug.api import hookimpl
@hookimpl
def robustplug_figures(run, folder):
    raise ValueError("boom")
"""
OURS = """
from robustplug.api import Line, Panel, hookimpl, line_figure
@hookimpl
def robustplug_figures(run, folder):
    line_figure(folder / "batchnorm.png", run.name, [0, 1], [Panel("", [Line("ours", [1, 2])])], "x", "y")
    return [("more", "robustplug more " + run.folder.name)]
"""


@pytest.mark.slow
def test_a_plugin_draws_for_the_page_and_one_that_fails_costs_nothing_else(
    run: Path, tmp_path: Path, install: Install
) -> None:
    install("broken", HOOK)
    install("ours", OURS)
    (tmp_path / "out").mkdir()
    body = json.loads((run / "result.json").read_text())
    body["attacks"][1]["seconds"] = 1e4
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    write_json(tmp_path / "run" / "result.json", seal_result(body, "result", tmp_path / "run"))
    result = run_cli("report", tmp_path / "run", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert 'plugin "broken" failed in robustplug_figures: ValueError: boom' in result.stderr
    assert "left out: more. robustplug more run" in result.stderr
    page = outline(tmp_path / "out" / "index.html")
    # Ours takes the place of the report's own of that name.
    assert [image["alt"] for image in page.all("img") if "ours from 1 at 0 to 2 at 1" in image["alt"]]
    assert not [image for image in page.all("img") if "running mean" in image["alt"]]


def test_a_run_that_is_not_finished_has_a_page(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "r", ignore=shutil.ignore_patterns("report", "result.json", "model*"))
    with (tmp_path / "r" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')
    result = run_cli("report", tmp_path / "r")
    assert result.exit_code == 0, result.output
    page = outline(tmp_path / "r" / "report" / "index.html")
    assert "The run is not finished" in page.words
    assert "robustplug train --resume" in page.words
    assert "line 4 is not valid JSON" in page.words
    assert {each["id"] for each in page.all("figure")} >= {"figure-training-accuracy", "figure-training-loss"}


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99, "attacks": []}', '{"attacks": 3}', "{}"])
def test_a_result_that_cannot_be_read_costs_its_part(content: str, run: Path, tmp_path: Path) -> None:
    kept = shutil.ignore_patterns("report", "result.json", "model*", "checkpoints", "metrics*")
    shutil.copytree(run, tmp_path / "r", ignore=kept)
    (tmp_path / "r" / "result.json").write_text(content)
    result = run_cli("report", tmp_path / "r", "--saved")
    assert result.exit_code == 0, result.output
    assert "[method.label_map]" in outline(tmp_path / "r" / "report" / "index.html").words


def test_a_folder_of_something_else_is_refused(cli: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in (".", "nothing", "file"):
        result = cli("report", tmp_path / name)
        assert result.exit_code == 2
        assert "contains neither a run nor a study" in result.output


@pytest.fixture(scope="module")
def studied(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out a study of two cells, one seed of which failed, from copies of a run."""
    folder = tmp_path_factory.mktemp("studies") / "s"
    cells = []
    for at, label in enumerate(("plain", EVIL)):
        runs: list[dict[str, object]] = []
        for seed in (0, 1):
            name = f"cell-{at}_seed-{seed}"
            failed = (at, seed) == (1, 1)
            row = {"seed": seed, "folder": f"runs/{name}", "seconds": None if failed else 2.0, "audit": None}
            status = {"status": "failed", "reason": EVIL} if failed else {"status": "finished", "reason": ""}
            runs.append(row | status | {"accuracies": {}})
            if not failed:
                target = folder / "runs" / name
                left = shutil.ignore_patterns("report", "model*", "checkpoints", "manifest*")
                shutil.copytree(run, target, ignore=left)
                recipe = target / "recipe.toml"
                recipe.write_text(recipe.read_text().replace("alpha = 0.01", f"alpha = 0.{at + 1}"))
        spread = {"mean": 0.5 + at / 10, "deviation": None if at else 0.1, "n": 2 - at}
        cells.append({"name": label, "labels": {"which": label}, "runs": runs, "rows": {"clean": spread}})
    body = {
        "format": 1,
        "name": EVIL,
        "base": "sprout",
        "axes": [{"name": "which", "labels": ["plain", EVIL], "numbers": None}],
        "seeds": [0, 1],
        "suite": None,
        "rows": ["clean"],
        "cells": cells,
    }
    (folder / "result.json").write_text(json.dumps(body))
    result = run_cli("report", folder)
    assert result.exit_code == 0, result.output
    return folder / "report" / "index.html"


def test_the_page_of_a_study_compares_its_cells(studied: Path) -> None:
    page = outline(studied)
    names = {each["id"].removeprefix("figure-") for each in page.all("figure")}
    assert names == {"study", "trade-off", "equal-compute", "radar"}
    assert not page.all("script")
    assert all(each["href"].startswith("#") for each in page.all("a"))
    for text in (
        "50.0 ± 10.0 %",
        "60.0 %",
        "failed: ",
        "1 failed",
        "method.label_map.alpha",
        "cell-0_seed-0",
    ):
        assert text in page.words, text
    (radar,) = (image["alt"] for image in page.all("img") if "speed" in image["alt"])
    assert "plain: clean 1.00" in radar


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_a_browser_shows_the_pages_without_complaint(reported: Path, studied: Path, tmp_path: Path) -> None:
    program = find_browser()
    assert program is not None
    with running(program, tmp_path / "profile") as browser:
        for page in (reported, studied):
            for width in (390, 1280):
                browser.open(page, width)
                assert browser.complaints() == []
                assert browser.requests() == [page.resolve().as_uri()]
                assert browser.value("document.documentElement.scrollWidth") <= width
                assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
                small = (
                    "[...document.querySelectorAll('p, td, th, li')].map(e => getComputedStyle(e).fontSize)"
                )
                assert min(float(size.removesuffix("px")) for size in browser.value(small)) >= 12
                browser.picture(tmp_path / "page.png")
                assert (tmp_path / "page.png").stat().st_size > 20_000
