"""Inputs outside their range are refused wherever an attack would be cut off from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.types import Batch, Feed, Split
from robustplug.errors import Refused, RunError
from robustplug.subjects.data.task import ArrayTask

from .runs import tiny

X, Y = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10


class Task(ArrayTask):
    """Images in [0, 3] that are said to lie in [0, 1]."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("train", "validation", "test"), (X, Y)), classes=10)

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        for batch in super().batches(split, feed):
            yield dataclasses.replace(batch, x=3 * batch.x)


@pytest.mark.parametrize("method", ["pgd-at", "cat"])
def test_training(method: str, tmp_path: Path) -> None:
    recipe: dict[str, Any] = tiny(method, evaluate={"attack": []}, validate={"attack": {"use": "none"}})
    del recipe["task"]
    with pytest.raises(RunError, match="lie outside the valid range"):
        robustplug.train(recipe, data=Task(), out=tmp_path / "run")


def test_an_attack_from_python() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with pytest.raises((Refused, RunError), match="valid range|\\[0, 1\\]"):
        robustplug.attack(model, 3 * X, Y, "pgd", vicinity={"use": "linf", "eps": 0.1})
