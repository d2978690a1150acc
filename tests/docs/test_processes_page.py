"""What docs/processes.md shows can be read, and its options are all there are."""

from __future__ import annotations

import tomllib
from dataclasses import fields

from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.options import TrainOptions

from .blocks import code_blocks
from .generated import ROOT

PAGE = ROOT / "docs" / "processes.md"


def test_the_table_can_be_read_and_every_line_of_it_is_explained() -> None:
    (block,) = [block for block in code_blocks(PAGE) if block.language == "toml"]
    tables = tomllib.loads(block.text)
    recipe = recipe_from_mapping({"task": {"use": "digits"}, "method": {"use": "erm"}, **tables})
    defaults = TrainOptions()
    for name, value in tables["train"].items():
        assert getattr(recipe.train, name) == value != getattr(defaults, name)
        assert name == "batch_size" or f"- `{name}`: " in PAGE.read_text()
    assert tables["train"].keys() <= {item.name for item in fields(TrainOptions)}


def test_methods_that_are_said_to_be_refused_say_why() -> None:
    from robustplug_awp.method import Awp
    from robustplug_gairat.method import Gairat

    assert Awp.whole_batch
    assert Gairat.whole_batch
