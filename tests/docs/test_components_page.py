"""docs/components.md: every block makes a component that conforms, and the recipe with all of them trains."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from unittest import SkipTest

import pytest

import robustplug
from robustplug.plugin.component import Kind
from robustplug.plugin.host import HERE, registry
from robustplug.testing.kit import all_checks

from .blocks import code_blocks
from .generated import ROOT

BLOCKS = list(code_blocks(ROOT / "docs" / "components.md"))
MADE = [block for block in BLOCKS if "register(" in block.text]
KINDS = get_args(Kind)
# Checks of kinds that train or start workers before the first that takes seconds, for the slow test.
LONG = {
    **dict.fromkeys(("vicinity", "perturbation", "label_map", "output_map", "loss", "method"), 8),
    "launcher": 0,
}


@pytest.fixture(scope="module", autouse=True)
def made() -> Iterator[None]:
    known = registry()
    components, owners = dict(known.components), dict(known.owners)
    for block in MADE:
        code = compile(block.text, str(block), "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__"})
    yield
    known.components.clear()
    known.components.update(components)
    known.owners.clear()
    known.owners.update(owners)


def names(kind: str) -> list[str]:
    return [name for (of, name), owner in registry().owners.items() if owner == HERE and of == kind]


def failures(kind: Kind, full: bool) -> list[str]:
    found = []
    for name in names(kind):
        checks = all_checks(name, kind)
        for check in checks if full or kind not in LONG else checks[: LONG[kind]]:
            try:
                check()
            except SkipTest:
                continue
            except AssertionError as error:
                found.append(f"{name}: {check.name}: {error}")
    return found


def test_there_is_one_of_each_kind() -> None:
    assert all(names(kind) for kind in KINDS)
    longest = max(MADE, key=lambda block: len(block.text.splitlines()))
    assert len(longest.text.splitlines()) < 30, f"{longest} is longer than the page promises"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_block_makes_conforms(kind: Kind) -> None:
    assert failures(kind, full=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(LONG))
def test_what_a_block_makes_conforms_in_training(kind: Kind) -> None:
    assert failures(kind, full=True) == []


def test_the_recipe_of_all_of_them_trains(tmp_path: Path) -> None:
    (text,) = [block.text for block in BLOCKS if block.language == "toml"]
    tables: dict[str, Any] = tomllib.loads(text)
    tables["task"] |= {"validation": 64, "test": 1600}
    result = robustplug.train(tables, out=tmp_path / "run", overrides=["train.epochs=1"]).result
    assert [row.name for row in result.attacks] == ["clean", "one-step", "confident"]
