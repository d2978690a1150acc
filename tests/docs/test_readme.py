"""What README, docs and method cards show works as shown."""

from __future__ import annotations

import os
import re
import time
import tomllib
from pathlib import Path
from unittest import mock

import click
import pytest

import robustplug
from robustplug.cli import main
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.toml.files import bundled_recipes, find_recipe

from .blocks import Block, calls, code_blocks, command_lines

ROOT = Path(robustplug.__file__).parents[1]
README = ROOT / "README.md"
FILES = [README, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("plugins/*/*.md"))]
BLOCKS = [block for file in FILES for block in code_blocks(file)]
CALLS = [(line, call) for file in FILES for line in command_lines(file) for call in calls(line.text)]
NOT_RUN = "# not run"
SECONDS = 10


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def parse(group: click.Group, arguments: list[str]) -> click.Context:
    """Parse a command line without running it; a mistake raises click.UsageError."""
    name, *rest = arguments
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"there is no command {name!r}"
    if isinstance(command, click.Group):
        return parse(command, rest)
    return command.make_context(name, rest)


def test_the_readme_shows_all_three_languages() -> None:
    shown = [block.language for block in code_blocks(README)]
    assert {"bash", "toml", "python"} <= set(shown)
    assert {"train", "validate", "evaluate"} <= {call[0] for line, call in CALLS if line.file == README}


@pytest.mark.parametrize(("line", "call"), CALLS, ids=[str(line) for line, _ in CALLS])
def test_command_lines_parse(line: Block, call: list[str]) -> None:
    try:
        context = parse(main, call)
    except click.exceptions.Exit:  # --help
        return
    except click.MissingParameter:  # a sentence may name a command without its arguments
        assert line.language == "inline"
        return
    recipe, overrides = context.params.get("recipe"), context.params.get("overrides") or ()
    if recipe is None:
        return
    try:
        find_recipe(recipe)
    except RecipeError:  # the reader's own
        assert Path(recipe).stem not in bundled_recipes()
        return
    read_recipe(recipe, overrides, starts=False)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_recipes_are_valid(block: Block) -> None:
    table = tomllib.loads(block.text)
    # Of that page, the recipe names what its other blocks make: test_components_page.py trains it.
    if {"task", "method"} <= set(table) and block.file.name != "components.md":
        recipe_from_mapping(table)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.text, str(block), "exec")
    if block.text.startswith(NOT_RUN):
        return
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    with mock.patch.dict(os.environ):
        exec(code, {"__name__": "example"})
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_links_lead_somewhere(file: Path) -> None:
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (file.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.toml")), ids=lambda path: path.name)
def test_bundled_recipes_are_found_and_valid(path: Path) -> None:
    if path.parent == ROOT / "recipes":
        assert find_recipe(path.stem) == path
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    if {"task", "method"} <= set(table):
        assert read_recipe(path, starts=False).name == table["name"]
    assert path.read_text(encoding="utf-8").startswith("# "), "the first line says what it is"
