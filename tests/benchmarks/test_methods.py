"""The benchmark of all methods spreads their schedules over the budget, and refuses idle ones."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import methods
import modern
import pytest
import results
import tomli_w

from robustplug.recipe.study import read_study
from robustplug.recipe.toml.files import bundled_recipes
from robustplug.recipe.write import recipe_to_mapping
from robustplug.studies.outcome import runs_of


def test_a_schedule_takes_the_same_share_of_other_epochs() -> None:
    iaat, made_for = methods.method_of("iaat", 0.1)
    assert (iaat["warmup"], made_for) == (5, 25)
    short = methods.paced(iaat, made_for, 5)
    assert (short["warmup"], short["beta"]) == (1, 0.5)
    assert methods.paced(iaat, made_for, 25) == iaat
    cat, made_for = methods.method_of("cat", "1/10")
    assert methods.paced(cat, made_for, 10)["eta"] == pytest.approx(0.0375)
    assert methods.paced(cat, made_for, 3)["eta"] == pytest.approx(0.05)
    fat, made_for = methods.method_of("fat", 0.1)
    assert fat["perturbation"]["milestones"] == [10, 19]
    assert methods.paced(fat, made_for, 50)["perturbation"]["milestones"] == [20, 38]
    trades, made_for = methods.method_of("trades", 0.1)
    assert methods.paced(trades, made_for, 3) == trades


def test_passes_that_depend_on_the_model_are_counted_on_all_samples() -> None:
    assert methods.is_known(methods.method_of("cat", 0.1)[0])
    assert not methods.is_known(methods.method_of("iaat", 0.1)[0])


def test_every_recipe_of_the_benchmark_can_be_paced() -> None:
    for name in methods.METHODS:
        method, made_for = methods.method_of(name, 0.1)
        assert methods.paced(method, made_for, made_for).keys() == method.keys()


def section(**rows: dict[int, results.Seed]) -> results.Section:
    made = [results.Row(name, "", 2, seeds) for name, seeds in rows.items()]
    return results.Section("a", "b", "c", ("clean", "PGD", "AutoAttack"), made)


def seeds(*last: float, **mechanism: float) -> dict[int, results.Seed]:
    return {number: results.Seed((98.0, 80.0, value), mechanism, (6, 6)) for number, value in enumerate(last)}


def test_a_row_where_nothing_moved_is_refused() -> None:
    rows = {
        "iaat": seeds(70, 71, moved=0.1, radius=0.0),
        "cat": seeds(70, 72, radius=0.5),
        "erm": seeds(10, 60, 61, 62, 63),
    }
    head, _, *lines = results.table(section(**rows))
    assert "radius did not move" in lines[0]
    assert lines[1].startswith(
        "| `cat` | 98.0 ± 0.0 | 80.0 ± 0.0 | 71.0 ± 1.4 | 70.0 | 0 of 2 | radius 0.5 |"
    )
    assert "| 10.0 | 1 of 5 | – |" in lines[2]
    assert {line.count("|") for line in lines} == {head.count("|")}


def test_what_is_stored_is_read_back_and_replaces_the_same_title(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert results.read(path) == []
    results.store(section(erm=seeds(1, 2)), path)
    new = section(cat=seeds(3, 4, radius=1.0))
    assert results.store(new, path) == [new]
    assert results.read(path) == [new]


def test_a_part_of_a_study_has_the_rows_that_it_starts_from() -> None:
    study = tomllib.loads((modern.STUDIES / "modern.toml").read_text(encoding="utf-8"))
    part = methods.chosen(study, ["ard", "trades-extra"])
    assert [case["label"] for case in part["axis"][0]["case"]] == ["erm", "trades", "trades-extra", "ard"]
    assert {key: value for key, value in part.items() if key != "axis"} == {
        key: value for key, value in study.items() if key != "axis"
    }
    with pytest.raises(SystemExit, match="has no tradse; it has erm, trades"):
        methods.chosen(study, ["tradse"])


def test_stored_rows_stay_beside_new_ones_only_where_the_study_is_the_same(tmp_path: Path) -> None:
    study = read_study(modern.STUDIES / "modern.toml")
    recipes = {
        run.cell.labels[0]: tomli_w.dumps(recipe_to_mapping(run.recipe))
        for run in runs_of(study, tmp_path)
        if run.seed == 0
    }

    def row(name: str, old: str = "", new: str = "") -> results.Row:
        assert old in recipes[name]
        return results.Row(name, recipes[name].replace(old, new), 13, seeds(1))

    stored = [
        row("trades"),
        row("rslad"),
        row("cat", "width = 16", "width = 8"),
        row("awp", "gamma = 0.005", "gamma = 0.01"),
        row("hat", "epochs = 12", "epochs = 13"),
        row("mart", "steps = 20", "steps = 50"),
        dataclasses.replace(row("erm"), name="gone"),
        row("erm"),
    ]
    new = [row("hat"), dataclasses.replace(row("erm"), seeds=seeds(6))]
    expected = [new[1], stored[0], new[0], stored[1]]
    assert methods.with_stored(new, stored, study, tmp_path) == expected


def test_a_section_says_which_rows_beat_its_baseline() -> None:
    rows = {
        "trades": seeds(70, 71, 72),
        "mart": seeds(70, 72, 71),
        "awp-pgd-at": seeds(75, 76.5, 77),
        "erm": seeds(10, 11, 12),
        "iaat": seeds(90, 91, 92, radius=0.0),
    }
    found = dataclasses.replace(section(**rows), baseline="trades")
    lines = results.compared(found)
    assert lines[2].startswith("- beats `trades`: `awp-pgd-at` (+5.2; ")
    assert lines[3].startswith("- is not told apart from `trades`: `mart` (+0.0; ")
    assert lines[4] == "- falls below `trades`: `erm` (−60.0; −60.0 to −60.0)"
    assert results.compared(section(**rows)) == []


def test_audits_have_a_column_where_there_are_some() -> None:
    audited = {number: dataclasses.replace(seed, audit="A") for number, seed in seeds(70, 71).items()}
    head, _, first, second = results.table(section(trades=audited, erm=seeds(1, 2)))
    assert head.endswith("| audit |")
    assert first.endswith("| 2 A |")
    assert second.endswith("| – |")


def test_a_student_is_made_again_after_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, Any]] = []

    def train(recipe: dict[str, Any], *, seed: int, out: Path) -> SimpleNamespace:
        trained.append((out.name, recipe.get("method", {}).get("teacher", {}).get("from")))
        out.mkdir()
        return SimpleNamespace(result=seed)

    monkeypatch.setattr("robustplug.train", train)
    start = 'method.teacher.from = "studies/modern/runs/recipe-trades_seed-0"'
    rows = [results.Row("trades", "", 1, {}), results.Row("ard", start, 1, {})]
    assert results.made_again(rows[1], 4, tmp_path, rows) == 4
    assert trained == [("trades", None), ("ard", str(tmp_path / "trades"))]


def test_a_card_shows_the_rows_that_it_names() -> None:
    found = section(cat=seeds(70, 72, radius=0.5), erm=seeds(10, 12))
    text = "before\n<!-- results: cat -->\nold\n<!-- end -->\nafter\n"
    made = results.card(text, [found])
    assert made.startswith("before\n<!-- results: cat -->\n\n| recipe | clean |")
    assert "| `cat` | 98.0 ± 0.0 | 80.0 ± 0.0 | 71.0 ± 1.4 | 70.0 |\n\n<!-- end -->\nafter" in made
    assert results.card(made, [found]) == made
    assert results.card("no table", []) == "no table"
    assert "Not measured yet." in results.card(text, [])


def test_a_card_says_how_its_method_compares_at_one_cost() -> None:
    rows = {"awp": seeds(70, 71, 72.5), "hat": seeds(60, 61, 62), "trades": seeds(70, 71, 72)}
    plain = section(awp=seeds(1, 2), hat=seeds(1, 2), trades=seeds(1, 2))
    study = dataclasses.replace(section(**rows), title="digits", baseline="trades")
    text = "<!-- results: {} -->\n<!-- end -->\n"
    made = results.card(text.format("hat trades"), [plain, study])
    assert made.index("| 1.5 ± 0.7 |") < made.index(
        "At one cost (digits), mean and standard deviation of 3 seeds:"
    )
    assert "`hat` falls below `trades`: −10.0 points, 95 % interval −10.0 to −10.0." in made
    assert "`awp` is not told apart from `trades`: +0.2 points" in results.card(
        text.format("awp"), [dataclasses.replace(study, rows=study.rows)]
    )
    assert "points" not in results.card(text.format("trades"), [study])
    # A row that only the other table has does not hide the study; a study without the first row is none.
    assert "At one cost (digits)" in results.card(text.format("hat hat-official"), [plain, study])
    assert "At one cost" not in results.card(text.format("hat-official hat"), [plain, study])
    idle = dataclasses.replace(section(trades=seeds(1, 2), iaat=seeds(3, 4, radius=0.0)), baseline="trades")
    assert "`iaat` was not at work: radius did not move." in results.card(text.format("iaat"), [idle])


def test_what_the_authors_state_is_in_the_file_that_is_named() -> None:
    for name, found in results.claims().items():
        text = (results.TOP / found["source"]).read_text(encoding="utf-8")
        for number in (found["clean"], found["robust"]):
            assert f"{number:.2f}" in text, (name, number)
        assert name in modern.ROWS
    study = dataclasses.replace(section(trades=seeds(70, 71), erm=seeds(1, 2)), baseline="trades")
    head, _, first, second = results.table(study)
    assert head.endswith("| the authors, CIFAR-10 |")
    assert first.endswith("| 84.92 / 53.18 AutoAttack; WRN-34-10 |")
    assert second.endswith("| – |")


def test_passes_of_an_epoch_with_extra_samples_are_those_for_each_other_sample() -> None:
    assert methods.extra_share('task = { use = "mix", share = 0.75 }') == 0.75
    assert methods.extra_share('task = { use = "digits" }') == 0
    (extra,) = modern.EXTRA.values()
    plan = modern.PLANS["modern"]
    method = modern.method_for("trades-extra", plan)[0]
    both = [modern.passes_of_epoch(row, method, plan) for row in ("trades-extra", "trades")]
    assert both[0] * (1 - extra) == both[1]


def test_another_seed_lies_in_the_interval() -> None:
    low, high = results.interval([84.0, 85.0, 86.0, 84.0, 86.0], 360)
    assert low < 82.0
    assert 88.0 < high < 91.0
    assert results.interval([50.0, 50.0], 100) == (49.0, 51.0)


def test_a_run_is_made_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = """
        schema = 1
        name = "small"
        task = { use = "digits" }
        model = { use = "small-cnn", width = 2, hidden = 4 }
        method = { use = "erm" }
        train = { epochs = 1 }
        evaluate = { samples = 20, attack = [{ use = "fgsm" }] }
    """
    row = results.Row("erm", recipe, 1, seeds(0.0, 1.0))
    assert not results.again(row, 0)
    assert "DIFFERS" in capsys.readouterr().out
    found = (1.0, 2.0, 3.0)
    monkeypatch.setattr(results, "measured", lambda result: found)
    stored = results.Row(
        "erm", recipe, 1, {0: results.Seed(found, {}, (1, 1)), 1: results.Seed(found, {}, (1, 1))}
    )
    assert results.again(stored, 0)
    assert "the same" in capsys.readouterr().out


def test_steps_of_a_radius_follow_the_radius() -> None:
    # At 8/255 they are about those of the papers: 0.005 and 10 of CAT, and 1.9/255 of IAAT.
    cat, iaat = (methods.method_of(name, "8/255")[0] for name in ("cat", "iaat"))
    assert cat["eta"] == pytest.approx(0.005, rel=0.1)
    assert cat["label_map"]["c"] == pytest.approx(10, rel=0.1)
    assert iaat["gamma"] == pytest.approx(1.9 / 255, rel=0.02)
    for name in ("cat", "iaat"):
        bundled = tomllib.loads(bundled_recipes()[name].read_text(encoding="utf-8"))["method"]
        assert methods.method_of(name, 0.1)[0] == bundled
