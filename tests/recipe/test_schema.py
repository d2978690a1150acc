from __future__ import annotations

import tomllib
from typing import Any

import pytest

from robustplug.plugin.registry import Registry
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.schema import recipe_schema
from robustplug.recipe.write import recipe_to_mapping

from .fakes import TEXT, fake_registry

jsonschema = pytest.importorskip("jsonschema")
REGISTRY = fake_registry()
SCHEMA = recipe_schema(REGISTRY)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def example(**changes: Any) -> dict[str, Any]:
    return {**tomllib.loads(TEXT), **changes}


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["required"] == ["task", "method"]
    assert SCHEMA["$defs"]["loss.ce"]["description"] == "A fake ce."
    assert SCHEMA["properties"]["train"]["properties"]["epochs"] == {
        "default": 20,
        "minimum": 1,
        "maximum": 2**31 - 1,
        "type": "integer",
    }
    assert {"type": "null"} not in SCHEMA["$defs"]["perturbation.pgd"]["properties"]["step_size"].get(
        "anyOf", []
    )


GOOD = [
    {},
    {"model": {"use": "torchvision:resnet50"}},
    {"model": {"use": "torchvision", "name": "x"}},
    {"optimizer": {"lr": 0.1}},
    {"method": {"use": "cat", "eps_max": "8/255", "perturbation": {"steps": 3}}},
    {"method": {"use": "cat", "eps_max": 1, "perturbation": {"use": "blend", "inner": {"steps": 3}}}},
    {"evaluate": {"attack": [{"use": "fgsm"}], "vicinity": {"use": "linf"}}},
    {"train": {"channels_last": True}},
]
BAD = [
    {"schema": 2},
    {"name": "a/b"},
    {"seed": -1},
    {"sede": 1},
    {"task": {}},
    {"task": {"use": "digts"}},
    {"method": {"use": "cat"}},
    {"method": {"use": "cat", "eps_max": "a/b"}},
    {"method": {"use": "cat", "eps_max": 1, "perturbation": {"use": "fgsm", "steps": 3}}},
    {"method": {"use": "cat", "eps_max": 1, "perturbation": {"use": "blend", "inner": {"stps": 3}}}},
    {"model": {"use": "torchvision"}},
    {"model": {"use": "small-cnn:x"}},
    {"evaluate": {"attack": [{"steps": 3}]}},
    {"evaluate": {"attack": {"use": "pgd"}}},
    {"validate": {"split": "test"}},
    {"train": {"channels_last": "yes"}},
    {"train": {"epochs": "3"}},
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_can_be_read_is_valid(changes: Any) -> None:
    mapping = example(**changes)
    VALIDATOR.validate(mapping)
    recipe = recipe_from_mapping(mapping, registry=REGISTRY)
    VALIDATOR.validate(recipe_to_mapping(recipe))


@pytest.mark.parametrize("changes", BAD)
def test_what_cannot_be_read_is_not(changes: Any) -> None:
    assert not VALIDATOR.is_valid(example(**changes))


def test_a_kind_without_components_is_still_a_schema() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema(Registry()))
    assert not validator.is_valid(example())
    assert not validator.is_valid(example(optimizer={"lr": 1}))


def test_options_that_cannot_be_read_are_left_out() -> None:
    assert "method.broken" not in SCHEMA["$defs"]
