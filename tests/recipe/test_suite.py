from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_suite
from robustplug.recipe.toml.files import bundled_suites, find_suite
from robustplug.recipe.write import use_to_mapping

LINF = {"use": "linf", "eps": 0.1}
L2 = {"use": "l2", "eps": 0.5}


def rows(*tables: dict[str, Any], threat: dict[str, Any] = LINF) -> Any:
    return read_suite({"row": list(tables)}, threat).row


def test_a_row_takes_the_threat_model_of_the_evaluation() -> None:
    (row,) = rows({"attack": {"use": "pgd", "steps": 7}})
    assert row.attack.options.steps == 7
    assert use_to_mapping(row.vicinity) == LINF


@pytest.mark.parametrize(
    ("vicinity", "threat", "expected"),
    [
        ({"eps": "8/255"}, LINF, {"use": "linf", "eps": 8 / 255}),
        ({"use": "linf"}, LINF, LINF),
        ({"use": "linf"}, L2, {"use": "linf", "eps": 8 / 255}),
        ({"eps": 0.2}, L2, {"use": "l2", "eps": 0.2}),
        ({"use": "l2", "eps": 1}, LINF, {"use": "l2", "eps": 1.0}),
    ],
)
def test_a_vicinity_without_a_name_changes_that_of_the_evaluation(
    vicinity: dict[str, Any], threat: dict[str, Any], expected: dict[str, Any]
) -> None:
    (row,) = rows({"attack": {"use": "fgsm"}, "vicinity": vicinity}, threat=threat)
    assert use_to_mapping(row.vicinity) == expected


def test_a_sweep_stands_for_all_combinations_the_first_key_slowest() -> None:
    sweep = {"attack": {"steps": [10, 100], "restarts": [1, 5]}, "vicinity": {"eps": [0.1, "8/255"]}}
    found = rows({"attack": {"use": "pgd"}, "sweep": sweep}, {"attack": {"use": "fgsm"}})
    pgd = [(r.attack.options.steps, r.attack.options.restarts, r.vicinity.options.eps) for r in found[:-1]]
    assert pgd == [(s, n, eps) for s in (10, 100) for n in (1, 5) for eps in (0.1, 8 / 255)]
    assert all(row.shown == ("steps", "restarts") for row in found[:-1])
    assert found[-1].attack.name == "fgsm"


def test_a_sweep_in_a_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'schema = 1\n[[row]]\nattack = { use = "pgd" }\nsweep.attack.steps = [1, 2]\nsweep.scale = [0.5, 1]\n'
    )
    suite = read_suite(path, LINF)
    assert suite.name == "mine"
    assert [(row.attack.options.steps, row.scale) for row in suite.row] == [
        (1, 0.5),
        (1, 1),
        (2, 0.5),
        (2, 1),
    ]


BROKEN = """schema = 1
[[row]]
attack = { use = "pgd" }
sweep.attack.steps = [10, 0]
sweep.attack.stesp = [1]
[[row]]
attack = { use = "pdg" }
vicinity = { use = "linf", eps = -1 }
[[row]]
attack = { use = "pgd" }
label = "PGD"
"""


def test_all_problems_at_once_each_on_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(BROKEN)
    with pytest.raises(RecipeError) as caught:
        read_suite(path, LINF)
    found = {(problem.line, problem.key) for problem in caught.value.problems}
    assert found == {
        (4, "row.0.sweep.attack.steps"),
        (5, "row.0.sweep.attack.stesp"),
        (7, "row.1.attack.use"),
        (8, "row.1.vicinity.eps"),
    }
    text = str(caught.value)
    assert 'did you mean "steps"?' in text
    assert 'Did you mean "pgd"?' in text


@pytest.mark.parametrize(
    ("sweep", "place", "message"),
    [
        ("steps", "row.0.sweep", "must be a table"),
        ({"attack": {"steps": 10}}, "row.0.sweep.attack.steps", "must be a list"),
        ({"attack": {"steps": []}}, "row.0.sweep.attack.steps", "must be a list"),
    ],
)
def test_a_sweep_that_is_none_is_reported(sweep: Any, place: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        rows({"attack": {"use": "pgd"}, "sweep": sweep})
    assert [problem.key for problem in caught.value.problems] == [place]


def test_a_label_for_a_whole_sweep_is_refused() -> None:
    with pytest.raises(RecipeError, match="same for every row"):
        rows({"label": "PGD", "attack": {"use": "pgd"}, "sweep": {"attack": {"steps": [1, 2]}}})


@pytest.mark.parametrize(
    "second", [{"vicinity": {"eps": 0.05}}, {"vicinity": L2}, {"shift": {"use": "linf"}}]
)
def test_rows_of_a_chain_must_build_on_each_other(second: dict[str, Any]) -> None:
    first = {"attack": {"use": "fgsm"}, "chain": "worst"}
    with pytest.raises(RecipeError, match='chain "worst" continues with another'):
        rows(first, first | second)
    grown = {"vicinity": {"eps": 0.2}}
    assert len(rows(first, first | grown)) == 2


def test_a_row_whose_plugin_is_not_there_is_kept_and_a_misspelt_one_is_not() -> None:
    (row,) = rows({"attack": {"use": "rays-of-tomorrow", "queries": 5}, "needs": "robustplug_tomorrow"})
    assert (row.label, row.attack.name, row.needs) == ("rays-of-tomorrow", "none", "robustplug_tomorrow")
    with pytest.raises(RecipeError, match="no perturbation is named"):
        rows({"attack": {"use": "rays-of-tomorrow"}})


def test_bundled_suites_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = bundled_suites()
    assert {"quick", "standard", "sprout", "iaat", "backward-smoothing"} <= known.keys()
    assert find_suite("quick") == find_suite("quick.toml") == known["quick"]
    with pytest.raises(RecipeError, match='did you mean "quick"'):
        find_suite("quik")


@pytest.mark.parametrize("name", sorted(bundled_suites()))
@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_every_bundled_suite_can_be_read(name: str, threat: dict[str, Any]) -> None:
    suite = read_suite(name, threat)
    assert suite.name == name
    assert suite.row
    assert bundled_suites()[name].read_text().startswith("# ")
