from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.recipe.errors import RecipeError
from robustplug.recipe.study import Study, read_study
from robustplug.recipe.toml.files import bundled_studies, find_study


def study(*axes: dict[str, Any], **rest: Any) -> Study:
    return read_study({"base": "cat", "axis": list(axes), **rest})


def problems(*axes: dict[str, Any], **rest: Any) -> list[tuple[str, str]]:
    with pytest.raises(RecipeError) as caught:
        study(*axes, **rest)
    return [(problem.key, problem.message) for problem in caught.value.problems]


ETA: dict[str, Any] = {"key": "method.eta", "values": [0.01, 0.05]}
STEPS: dict[str, Any] = {
    "name": "k",
    "key": "method.perturbation.steps",
    "values": [1, 3],
    "labels": ["few", "many"],
}
METHODS: dict[str, Any] = {
    "name": "method",
    "case": [
        {"label": "CAT", "set": {}},
        {"label": "TRADES 2", "set": {"method": {"use": "trades", "beta": 2}}},
    ],
}


def test_cells_are_all_combinations_the_first_axis_slowest() -> None:
    found = study(ETA, STEPS, seeds=[3, 5])
    assert [axis.name for axis in found.axes] == ["eta", "k"]
    assert [cell.labels for cell in found.cells] == [
        ("0.01", "few"),
        ("0.01", "many"),
        ("0.05", "few"),
        ("0.05", "many"),
    ]
    assert [cell.recipe.method.options.eta for cell in found.cells] == [0.01, 0.01, 0.05, 0.05]
    assert [cell.recipe.method.options.perturbation.options.steps for cell in found.cells] == [1, 3, 1, 3]
    assert found.cells[1].name == "eta=0.01, k=many"
    assert found.cells[1].changes == {"method.eta": 0.01, "method.perturbation.steps": 3}
    assert [found.cells[1].with_seed(seed).name for seed in found.seeds] == [
        "eta-0.01_k-many_seed-3",
        "eta-0.01_k-many_seed-5",
    ]
    assert found.cells[1].with_seed(5).seed == 5


def test_an_axis_has_numbers_when_all_its_values_are_some() -> None:
    found = study(
        {"key": "method.eta", "values": [0.01, "8/255"]},
        {"key": "train.ema_decay", "values": [0, 0.5], "labels": ["no", "yes"]},
        {"key": "method.adaptive", "values": [True, False]},
        METHODS | {"name": "m", "case": METHODS["case"][:1]},
    )
    assert [axis.numbers for axis in found.axes] == [(0.01, 8 / 255), (0.0, 0.5), None, None]
    assert found.axes[0].labels == ("0.01", "8/255")
    assert found.axes[2].labels == ("true", "false")


def test_without_axes_a_study_is_one_recipe_with_several_seeds() -> None:
    found = study(seeds=[0, 1])
    (cell,) = found.cells
    assert (cell.name, cell.slug, cell.labels) == ("", "", ())
    assert cell.with_seed(1).name == "seed-1"


def test_a_table_that_names_a_component_replaces_it() -> None:
    cat, trades = study(METHODS).cells
    assert cat.recipe.method.name == "cat"
    assert (trades.recipe.method.name, trades.recipe.method.options.beta) == ("trades", 2)
    assert cat.recipe.train == trades.recipe.train


def test_other_tables_set_their_keys_only_quoted_or_not(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    text = 'base = "cat"\n[set]\n{key} = 2\nmethod.perturbation.{steps} = 4\n'
    file.write_text(text.format(key='"train.epochs"', steps="steps"))
    quoted = read_study(file).cells[0].recipe
    file.write_text(text.format(key="train.epochs", steps='"steps"'))
    assert read_study(file).cells[0].recipe == quoted
    base = study().cells[0].recipe
    assert (quoted.train.epochs, quoted.train.batch_size) == (2, base.train.batch_size)
    assert quoted.train.epochs != base.train.epochs
    assert quoted.method.options.perturbation.options.steps == 4
    assert quoted.method.options.eta == base.method.options.eta


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_set_within_a_component_holds_for_every_choice_of_it(turned: bool) -> None:
    axes = [STEPS, METHODS] if turned else [METHODS, STEPS]
    cells = study(*axes).cells
    steps = [(c.recipe.method.name, c.recipe.method.options.perturbation.options.steps) for c in cells]
    assert sorted(steps) == [("cat", 1), ("cat", 3), ("trades", 1), ("trades", 3)]
    common = study(METHODS, set={"method.perturbation.steps": 7}).cells
    assert [cell.recipe.method.options.perturbation.options.steps for cell in common] == [7, 7]


def test_values_are_never_parsed() -> None:
    assert problems({"key": "train.epochs", "values": ["3"]}) == [
        (
            "axis.0.values.0",
            "train.epochs must be a whole number, not a string: write 3 without quotes (in cell epochs=3)",
        )
    ]


def test_values_may_be_tables_and_are_not_shared_between_cells() -> None:
    values = [{"use": "cat"}, {"use": "trades"}]
    found = study({"key": "method", "values": values}, STEPS | {"values": [1, 3]})
    assert found.axes[0].labels == ("cat", "trades")
    assert values == [{"use": "cat"}, {"use": "trades"}]
    assert [cell.recipe.method.options.perturbation.options.steps for cell in found.cells] == [1, 3, 1, 3]


@pytest.mark.parametrize(
    ("labels", "slugs"),
    [
        (["8/255", "a b"], ["n-8-255", "n-a-b"]),
        (["../../x", "ü"], ["n-..-..-x", "n--"]),
        (["-1", "1"], ["n--1", "n-1"]),
    ],
)
def test_folders_have_readable_safe_names(labels: list[str], slugs: list[str]) -> None:
    axis = {"name": "n", "key": "train.epochs", "values": [1, 2], "labels": labels}
    assert [cell.slug for cell in study(axis).cells] == slugs


def test_folders_are_unique_and_stay_when_values_are_added() -> None:
    def slugs(*labels: str) -> list[str]:
        axis = {
            "name": "n",
            "key": "train.epochs",
            "values": list(range(1, len(labels) + 1)),
            "labels": labels,
        }
        return [cell.slug for cell in study(axis).cells]

    all_of_them = slugs("a b", "a-b", "A b", "x" * 300, "x" * 299 + "y")
    assert len({slug.casefold() for slug in all_of_them}) == 5
    assert max(map(len, all_of_them)) <= 120
    assert all_of_them[0] == "n-a-b"
    assert slugs("a b", "a-b") == all_of_them[:2]
    (dotted,) = study({"name": ".", "key": "train.epochs", "values": [1]}).cells
    assert dotted.recipe.name == "1_seed-0"


BROKEN = """schema = 1
base = "cat"
seeds = [0, 1, 0]
siute = "quick"
[set]
"train.epochs" = 0
"optimiser.lr" = 0.1
[[axis]]
key = "method.eta"
values = [0.01, -1, -1.0]
[[axis]]
name = "method"
[[axis.case]]
label = "A"
set = { method = { use = "tradess" } }
[[axis.case]]
label = "B"
set = { "method.etta" = 1 }
[[axis]]
key = "method.eta"
values = [1, 2]
labels = ["one"]
[[axis]]
kye = "train.batch_size"
values = [1]
"""


def test_all_problems_at_once_each_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(BROKEN)
    with pytest.raises(RecipeError) as caught:
        read_study(file)
    found = {(problem.line, problem.key) for problem in caught.value.problems}
    assert found == {
        (3, "seeds"),
        (4, "siute"),
        (6, 'set."train.epochs"'),
        (7, 'set."optimiser.lr"'),
        (10, "axis.0.values.1"),
        (10, "axis.0.values.2"),
        (15, "axis.1.case.0.set.method"),
        (18, 'axis.1.case.1.set."method.etta"'),
        (22, "axis.2.labels"),
        (24, "axis.3.kye"),
    }
    text = str(caught.value)
    for meant in ("suite", "optimizer", "trades", "eta", "key"):
        assert f'did you mean "{meant}"?' in text.replace("Did", "did")
    # The same problem of six cells is told once, with the first of them.
    assert text.count("train.epochs must be at least 1, not 0 (in cell eta=0.01, method=A and 5 more)") == 1


def test_problems_of_the_base_recipe_are_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[task]\nuse = "digits"\n[method]\nuse = "cat"\neta = -1\n')
    file = tmp_path / "a.toml"
    file.write_text('base = "mine.toml"\nseeds = [0, 1]\n')
    with pytest.raises(RecipeError) as caught:
        read_study(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (1, "base")
    assert problem.message == f"{tmp_path / 'mine.toml'}:5: method.eta must be at least 0, not -1"
    file.write_text('base = "mine.toml"\n[set]\nmethod.eta = 0.1\n')
    assert read_study(file).cells[0].recipe.method.options.eta == 0.1
    (tmp_path / "mine.toml").write_text("[task\n")
    with pytest.raises(RecipeError, match=r"mine\.toml:1: is not TOML"):
        read_study(file)


WRONG: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "both forms": ([{**METHODS, "key": "train.epochs", "values": [1]}], {}, "axis.0.key", "one form"),
    "no form": ([{"name": "a"}], {}, "axis.0", "key is missing"),
    "no values": ([{"key": "train.epochs", "values": []}], {}, "axis.0.values", "is empty"),
    "no cases": ([{"name": "a", "case": []}], {}, "axis.0", "values is empty"),
    "no name": ([{"case": METHODS["case"]}], {}, "axis.0", "name is missing"),
    "no label": ([{"name": "a", "case": [{"set": {}}]}], {}, "axis.0.case.0.label", "is missing"),
    "labels": ([{**STEPS, "labels": ["a"]}], {}, "axis.0.labels", "labels has 1 entries, but values has 2"),
    "same label": ([{**STEPS, "labels": ["a", "a"]}], {}, "axis.0", 'label "a" occurs 2 times'),
    "same case": ([{**METHODS, "case": METHODS["case"] * 2}], {}, "axis.0", '"CAT" occurs 2 times'),
    "same value": ([{"key": "train.epochs", "values": [1, 1]}], {}, "axis.0", '"1" occurs 2 times'),
    "same name": ([ETA, {**STEPS, "name": "eta"}], {}, "axis.1", "is used by 2 axes"),
    "label needed": ([{"key": "evaluate.attack", "values": [[]]}], {}, "axis.0.values.0", "needs a label"),
    "two axes": ([ETA, {**ETA, "name": "b"}], {}, "axis.1.values.0", 'written by axis "eta"'),
    "axis in table": (
        [METHODS, {"key": "method.beta", "values": [1]}],
        {},
        "axis.1.values.0",
        'method.beta is also written by axis "method"',
    ),
    "axis and set": ([ETA], {"set": {"method.eta": 1}}, "axis.0.values.0", "also written by [set]"),
    "twice in set": ([], {"set": {"train": {"epochs": 1}, "train.epochs": 2}}, "set", "twice by [set]"),
    "seeds": ([], {"seeds": [1, 1]}, "seeds", "seed 1 occurs 2 times"),
    "no seeds": ([], {"seeds": []}, "seeds", "is empty"),
    "bad seed": ([], {"seeds": [-1]}, "seeds.0", "at least 0"),
    "seed as axis": ([{"key": "seed", "values": [1]}], {}, "axis.0.values.0", "is varied by seeds"),
    "name as set": ([], {"set": {"name": "x"}}, "set.name", "is set in each cell"),
    "bad key": ([{"key": "a b", "values": [1]}], {}, "axis.0.key", "is not a key"),
    "bad set key": ([], {"set": {"a b": 1}}, "set", "is not a key"),
    "below a value": ([], {"set": {"name_": 1, "train.epochs.x": 1}}, "set", "is not a table"),
    "no such base": ([], {"base": "catt"}, "base", "no bundled recipe"),
    "no such suite": ([], {"suite": "quik"}, "suite", "no bundled suite"),
    "bad suite": ([], {"suite": "cat"}, "suite", "no bundled suite"),
    "schema": ([], {"schema": 7}, "schema", "schema 7 is not known"),
    "name": ([], {"name": "../x"}, "name", "cannot be a folder name"),
    "axis is no array": ([], {"axis": 3}, "axis", "must be an array of tables"),
    "set is no table": ([], {"set": 3}, "set", "must be a table"),
}


@pytest.mark.parametrize(("axes", "rest", "key", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_reported(axes: list[dict[str, Any]], rest: Any, key: str, message: str) -> None:
    found = problems(*axes, **rest) if axes else problems_of({"base": "cat", **rest})
    assert any(place.startswith(key) and message in text for place, text in found), found


def problems_of(table: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(RecipeError) as caught:
        read_study(table)
    return [(problem.key, problem.message) for problem in caught.value.problems]


def test_a_suite_is_checked_in_the_threat_model_of_the_cells(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[row]]\nattack = { use = "pdg" }\n')
    file = tmp_path / "a.toml"
    file.write_text('base = "cat"\nsuite = "mine.toml"\n')
    with pytest.raises(RecipeError, match=r"mine\.toml:2: row\.0\.attack\.use") as caught:
        read_study(file)
    assert caught.value.problems[0].line == 2
    (tmp_path / "mine.toml").write_text('[[row]]\nattack = { use = "pgd" }\n')
    found = read_study(file)
    assert (found.suite, found.suite_name, found.name) == (tmp_path / "mine.toml", "mine", "a")
    file.write_text('base = "cat"\nsuite = "quick"\nname = "other"\n')
    assert (read_study(file).suite_name, read_study(file).name) == ("quick", "other")


def test_bundled_studies_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = tmp_path / "package" / "recipes"
    (recipes / "studies").mkdir(parents=True)
    (recipes / "studies" / "mine.toml").write_text('# Mine.\nbase = "cat"\n')
    monkeypatch.setattr("robustplug.recipe.toml.files.PACKAGE", tmp_path / "package" / "robustplug")
    monkeypatch.chdir(tmp_path)
    assert list(bundled_studies()) == ["mine"]
    assert find_study("mine") == find_study("mine.toml") == recipes / "studies" / "mine.toml"
    with pytest.raises(RecipeError, match='did you mean "mine".*recipes list --studies'):
        find_study("mien")


@pytest.mark.parametrize("name", sorted(bundled_studies()))
def test_every_bundled_study_can_be_read(name: str) -> None:
    assert read_study(name).name == name
    assert bundled_studies()[name].read_text().startswith("# ")


@pytest.mark.parametrize(
    ("axes", "rest", "text"),
    [
        ([{"name": "a", "case": [{"label": "x", "set": {"train": {}}}]}], {}, "is an empty table"),
        ([{"name": "a", "case": [{"label": "", "set": {}}]}], {}, "is empty: it names the case"),
        ([], {"suite": "audit.toml"}, 'is named "audit"'),
    ],
)
def test_what_would_be_lost_in_silence_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    axes: list[dict[str, Any]],
    rest: dict[str, Any],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.toml").write_text('[[row]]\nattack = { use = "fgsm" }\n')
    assert any(text in message for _, message in problems(*axes, **rest))


def test_a_truth_value_is_no_seed() -> None:
    (problem,) = problems(seeds=[True, 1])
    assert problem[0].startswith("seeds")
