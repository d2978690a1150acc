"""The tables of the cards are those of certificates.json, and every row is a recipe that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import certificates
import pytest

from robustplug.recipe.load import recipe_from_mapping


@pytest.mark.parametrize("data", ["digits", "mnist", "cifar10"])
def test_every_row_is_a_recipe(data: str) -> None:
    found = [
        recipe_from_mapping({**tables, "name": "row", "seed": 0})
        for _, _, tables in certificates.recipes(data)
    ]
    assert all(recipe.evaluate.measurement for recipe in found)
    assert len(found) == {"digits": 12, "mnist": 15, "cifar10": 10}[data]


def test_the_cards_are_those_of_the_numbers() -> None:
    numbers = certificates.NUMBERS
    body = json.loads(numbers.read_text(encoding="utf-8")) if numbers.exists() else {}
    for path, text in certificates.made(body).items():
        assert path.read_text(encoding="utf-8") == text, path
    for table in body.values():
        assert all(len(seeds) >= 3 for seeds in table["rows"].values())


def test_a_table_has_means_and_deviations_over_the_seeds() -> None:
    names = certificates.columns_of("bounds-digits").values()
    rows = {"ibp": {str(seed): dict.fromkeys(names, 90.0 + seed) for seed in range(3)}}
    lines = certificates.laid_out("bounds-digits", rows).splitlines()
    assert lines[0].startswith("| | clean | under PGD | certified, IBP |")
    assert lines[2].startswith("| ibp | 91.0 ± 1.0 |")


def test_a_run_whose_bounds_contradict_each_other_gives_no_number(tmp_path: object) -> None:
    with pytest.raises(SystemExit, match="contradict each other"):
        certificates.refuse_contradictions({"meta": {"contradictions": [{}]}}, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [["--rows", "ibp"], ["--seeds", "0", "1"], ["--seeds", "0", "0", "0"]])
def test_a_part_of_a_table_is_not_stored(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "recipes", lambda data: iter(()))
    monkeypatch.setattr(Path, "write_text", None)
    with pytest.raises(SystemExit) as stopped:
        certificates.main(["--out", "nowhere", "--write", *words])
    assert stopped.value.code == 2
