"""Hostile values for every option of every command, and every key of a recipe: no traceback, and no hang."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from robustplug.cli import main
from robustplug.plugin.component import KINDS, Kind, Use
from robustplug.plugin.host import registry
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping

from ..security.hostile import in_time
from .conftest import Invoke

pytestmark = pytest.mark.table

TEXTS = [
    "",
    "-1",
    str(10**30),
    "1" * 5000,
    "1e400",
    "nan",
    "[/red]",
    "\x1b[31m\x07\n",
    "x" * 5000,
    "/dev/null",
]
VALUES: list[Any] = [
    *TEXTS,
    *(0, -1, 2**31, 10**30, 10**5000, -(2**63), True),
    *(1e308, -1e308, 1e-320, float("nan"), float("inf"), None),
    *([], [[1]], [10**9] * 3, {}, {"use": "absent"}, {"use": {}}, "\0", "../../etc/passwd"),
]
# Absent arguments end a command before it does any work.
ARGUMENTS = {
    "describe": ["digits"],
    "train": ["--recipe", "absent"],
    "export": ["absent", "--to", "onnx"],
}


def options() -> Iterator[tuple[list[str], str]]:
    """Yield the arguments of each command, and each of its options that takes a value."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group) or name not in ("describe", *TESTED):
            continue
        words = [name, *ARGUMENTS.get(name, ["absent"])]
        for each in command.params:
            if isinstance(each, click.Option) and not each.is_flag:
                yield words, each.opts[0]


TESTED = ("compare", "components", "describe", "evaluate", "report", "show", "study", "train", "validate")


@pytest.mark.parametrize(("words", "option"), options(), ids=lambda each: str(each[0] if each else ""))
def test_an_option_of_any_value(
    cli: Invoke, words: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    some = TEXTS[::2] if words[0] != "describe" else TEXTS[:3]
    for text in some:
        with in_time():
            result = cli(*words, f"{option}={text}")
        assert result.exit_code in (0, 1, 2), (option, text[:40], result.output)
        assert result.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_any_value(kind: Kind) -> None:
    shown: list[str] = []
    for name in registry().names(kind):
        component = registry().get(kind, name)
        if component.options.__module__.startswith("robustplug_") and name != component.name:
            continue
        for item in dataclasses.fields(component.options):
            for value in VALUES:
                try:
                    with in_time():
                        resolve(Use(name, {**component.trial, item.name: value}), kind)
                except RecipeError as error:
                    shown.append(str(error))
    assert all(shown)


BASE = {"task": {"use": "digits"}, "method": {"use": "erm"}}
TABLES = {
    "": ["schema", "name", "seed", "task", "method", "train", "evaluate"],
    "train": ["epochs", "batch_size", "clip_grad_norm", "class_weights", "augment", "ema_decay"],
    "validate": ["split", "every", "samples", "attack"],
    "evaluate": ["split", "samples", "batch_size", "attack", "vicinity"],
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_any_value(table: str) -> None:
    shown: list[str] = []
    for key in TABLES[table]:
        for value in VALUES:
            tables: dict[str, Any] = {**BASE, key: value} if not table else {**BASE, table: {key: value}}
            try:
                with in_time():
                    recipe_from_mapping(tables)
            except RecipeError as error:
                shown.append(str(error))
    assert all(shown)


ABSURD = {
    "train.epochs": 10**12,
    "train.batch_size": 10**9,
    "evaluate.samples": 2**31,
    "validate.batch_size": 2**20 + 1,
    "seed": 2**63,
    "model.width": 10**9,
    "model.hidden": 10**30,
    "optimizer.lr": 1e31,
}


@pytest.mark.parametrize(("key", "value"), ABSURD.items())
def test_an_absurd_number_is_refused_with_its_key(key: str, value: float) -> None:
    base = {**BASE, "model": {"use": "small-cnn"}}
    with pytest.raises(RecipeError, match=re_of(key)):
        recipe_from_mapping(base, [f"{key}={value!r}"])


def re_of(key: str) -> str:
    return key.replace(".", r"\.")
