"""The modality of samples and threat models: what a task makes the default, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import robustplug
from robustplug.evaluation.rows import suite_attacks
from robustplug.plugin.component import Use
from robustplug.plugin.host import registry
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.layers import default_attacks
from robustplug.recipe.load import read_suite, recipe_from_mapping


def read(task: str, **tables: Any) -> Any:
    return recipe_from_mapping({"task": {"use": task}, "method": {"use": "erm"}, **tables})


@pytest.mark.parametrize(
    ("task", "vicinity"),
    [
        ("digits", "linf"),
        ("synthetic-translation", "word-replacement"),
        ("translation", "word-replacement"),
        ("scripted-negotiation", "rules"),
        ("negotiation", "rules"),
    ],
)
def test_the_default_threat_model_is_that_of_the_modality(task: str, vicinity: str) -> None:
    recipe = read(task)
    assert recipe.method.options.vicinity.name == vicinity
    assert (recipe.evaluate.vicinity or recipe.method.options.vicinity).name == vicinity
    assert (default_attacks({"use": task}, registry()) is None) == (task == "digits")


def test_what_a_recipe_states_is_kept() -> None:
    own = {"use": "word-replacement", "eps": 3.0}
    recipe = read("synthetic-translation", evaluate={"vicinity": own, "samples": 4})
    assert recipe.evaluate.vicinity.options.eps == 3
    assert recipe.evaluate.samples == 4
    assert recipe.evaluate.loss.name == "translation"
    stated = {"use": "erm", "vicinity": own}
    assert read("synthetic-translation", method=stated).method.options.vicinity.options.eps == 3


@pytest.mark.parametrize("table", ["evaluate", "method"])
def test_a_threat_model_of_another_modality_is_refused(table: str) -> None:
    used = {"vicinity": {"use": "linf"}, **({"use": "erm"} if table == "method" else {})}
    with pytest.raises(RecipeError, match=r'"linf" perturbs numbers, and .* are text\n.*word-replacement'):
        read("translation", **{table: used})
    with pytest.raises(RecipeError, match=r'"word-replacement" is not for the task "digits"'):
        read("digits", **{table: {**used, "vicinity": {"use": "word-replacement"}}})


def test_a_row_of_a_suite_for_another_modality_is_refused_alone() -> None:
    text = resolve(Use("word-replacement"), "vicinity")
    rows = [{"attack": {"use": "pgd"}, "vicinity": {"use": "l2"}}, {"attack": {"use": "seq2sick"}}]
    suite = read_suite({"name": "mixed", "row": rows}, {"use": "word-replacement"})
    info = robustplug.build("task", "synthetic-translation", sentences=8, keyword_above=0).info
    first, second = suite_attacks(suite, text, (), info)
    assert first.refused == 'vicinity "l2" perturbs numbers, and the samples are text'
    assert not second.refused


def test_every_threat_model_has_the_modality_of_its_tasks() -> None:
    known = registry()
    for component in known.by_kind()["vicinity"]:
        for task in component.tasks:
            assert known.get("task", task).modality == component.modality
    for component in known.by_kind()["task"]:
        threat = component.evaluate.get("vicinity")
        assert component.modality == "numbers" or threat is not None
        if threat is not None:
            assert known.get("vicinity", threat["use"]).modality == component.modality
