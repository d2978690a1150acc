from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustplug.plugin.component import Use
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.options import Recipe
from robustplug.recipe.write import recipe_hash, recipe_to_mapping, use_to_mapping, write_recipe

from .fakes import TEXT, fake_registry

REGISTRY = fake_registry()


def example(**changes: Any) -> Recipe:
    return recipe_from_mapping({**tomllib.loads(TEXT), **changes}, registry=REGISTRY)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"use": "torchvision:resnet50"}},
        {"optimizer": {"lr": math.nextafter(0.1, 1)}},
        {"optimizer": {"lr": 1e-300, "nesterov": True}},
        {"method": {"use": "cat", "eps_max": "1/3", "parts": [], "perturbation": {"use": "blend"}}},
        {"evaluate": {"attack": [], "loss": {"weights": {"odd key": 1, "é": 2.5}}}},
        {"train": {"ema_decay": 0.999, "clip_grad_norm": 1}},
    ],
)
def test_what_is_written_reads_back_equal(tmp_path: Path, changes: Any) -> None:
    recipe = example(**changes)
    path = tmp_path / "recipe.toml"
    path.write_text(write_recipe(recipe), encoding="utf-8")
    again = read_recipe(path, registry=REGISTRY)
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)
    assert write_recipe(again) == write_recipe(recipe)


def test_everything_is_explicit() -> None:
    mapping = recipe_to_mapping(example())
    assert mapping["method"]["perturbation"] == {
        "use": "pgd",
        "steps": 10,
        "step_size": 2 / 255,
        "restarts": 1,
        "keep": "best",
        "shape": [1.0, 2.5],
    }
    assert next(iter(mapping["method"])) == "use"
    assert mapping["schedule"] == {"use": "constant"}
    assert mapping["validate"]["split"] == "validation"
    assert "vicinity" not in mapping["evaluate"]


def test_the_hash_follows_the_meaning_not_the_writing() -> None:
    assert recipe_hash(example(optimizer={"lr": 1})) == recipe_hash(
        example(optimizer={"use": "sgd", "lr": "2/2"})
    )
    assert recipe_hash(example(seed=1)) != recipe_hash(example())


def test_an_unresolved_reference_is_refused() -> None:
    with pytest.raises(TypeError, match="resolve"):
        use_to_mapping(Use("pgd", {"steps": 3}))
    with pytest.raises(TypeError, match="resolve"):
        write_recipe(replace(example(), task=Use("digits")))


def test_a_none_that_toml_cannot_say_is_refused() -> None:
    recipe = example()
    with pytest.raises(ValueError, match=r"validate.samples is None.*1000"):
        write_recipe(replace(recipe, validate=replace(recipe.validate, samples=None)))
    weaker = replace(recipe.method.options.perturbation.options, step_size=None)
    method = replace(recipe.method.options, perturbation=Use("pgd", weaker))
    with pytest.raises(ValueError, match=r"method.perturbation.step_size is None.*0.0078"):
        write_recipe(replace(recipe, method=Use("cat", method)))
    assert "step_size" not in use_to_mapping(Use("pgd", weaker))
