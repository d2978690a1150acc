"""The Python API answers hostile values with one RunError, RecipeError, ValueError or TypeError."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robustplug
from robustplug.errors import RunError
from robustplug.recipe.errors import RecipeError

from .hostile import NO_FILES, in_time

pytestmark = pytest.mark.table

X, Y = np.zeros((4, 1, 8, 8), np.float32), np.arange(4)
VALUES: dict[str, Any] = {
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "bytes that are no UTF-8": os.fsdecode(b"\xff"),
    "long": "x" * 5_000,
    "markup": "[/red]",
    "empty": "",
    "dash": "--recipe",
}
CALLS: dict[str, Callable[[Any], object]] = {
    "train": lambda value: robustplug.train(value),
    "resume": lambda value: robustplug.train(resume=value or "x"),
    "evaluate": lambda value: robustplug.evaluate(value or "x"),
    "evaluate a file": lambda value: robustplug.evaluate(value or "x", task="digits"),
    "suite": lambda value: robustplug.evaluate(
        lambda x: x[:, 0, :1].flatten(1), data=(X, Y), suite=value or "x"
    ),
    "attack": lambda value: robustplug.attack(lambda x: x.flatten(1)[:, :4], X, Y, value),
    "task": lambda value: robustplug.evaluate(lambda x: x, task=value or "x"),
    "audit": lambda value: robustplug.audit(value or "x", task="digits"),
    "report": lambda value: robustplug.report(value or "x"),
    "study": lambda value: robustplug.study(value),
    "build": lambda value: robustplug.build("task", "arrays", path=value or "x"),
    "export": lambda value: robustplug.export(value or "x", to="onnx"),
}
KNOWN = (RunError, RecipeError, ValueError, TypeError)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", VALUES)
def test_a_hostile_value_is_refused(
    call: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with in_time(), pytest.raises(KNOWN) as caught:
        CALLS[call](VALUES[value])
    assert not isinstance(caught.value, UnicodeError), caught.value
    assert str(caught.value)


@pytest.mark.parametrize(
    "call", ["train", "resume", "evaluate", "evaluate a file", "report", "study", "build"]
)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused(
    call: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = NO_FILES[kind](tmp_path / "it.npz")
    with in_time(), pytest.raises(KNOWN):
        CALLS[call](str(path))
    left_out = robustplug.compare([path]).left_out
    assert list(left_out) == [str(path)]
