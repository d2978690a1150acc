"""Every table on docs/training.md is part of a recipe that can be read."""

from __future__ import annotations

import tomllib

import pytest

from robustplug.recipe.load import recipe_from_mapping

from .blocks import Block, code_blocks
from .generated import ROOT

BLOCKS = list(code_blocks(ROOT / "docs" / "training.md"))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_table_can_be_read(block: Block) -> None:
    tables = tomllib.loads(block.text)
    assert block.language == "toml"
    # The runs that a table names are the reader's.
    whole = {"task": {"use": "digits"}, "method": {"use": "erm"}, **tables}
    recipe = recipe_from_mapping(whole, starts=False)
    for name in tables:
        assert getattr(recipe, name) is not None


def test_there_are_tables() -> None:
    assert len(BLOCKS) > 6
