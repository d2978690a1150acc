"""On a GPU, captured attacks give the same numbers as attacks that run as they are written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.replaying.iterations import Iterations

from ..evaluation.masks import trained

pytestmark = pytest.mark.gpu

ATTACKS: list[dict[str, Any]] = [
    {"use": "pgd", "steps": 8, "restarts": 2},
    {"use": "mi-fgsm", "steps": 8},
    {"use": "apgd-ce", "steps": 20},
    {"use": "apgd-t", "steps": 10, "targets": 3},
    {"use": "square", "queries": 60},
    {"use": "rays", "queries": 80},
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack["use"]))
def test_captured_attacks_change_no_number(attack: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    prepare = Iterations.prepare

    def counting(self: Iterations) -> Any:
        counts.append(self)
        return prepare(self)

    monkeypatch.setattr(Iterations, "prepare", counting)
    settings: Any = {"task": "digits", "threat": {"use": "linf", "eps": 0.08}, "device": "cuda"}
    found = [
        robustplug.evaluate(
            trained().cuda(),
            attacks=[attack],
            samples=150,
            batch_size=24,
            overrides=[f"train.fast={fast}"],
            **settings,
        )
        for fast in ("off", "auto")
    ]
    rows = [[(row.right, row.forwards, row.backwards, row.distance) for row in one.attacks] for one in found]
    assert rows[0] == rows[1]
    assert 0 < found[0].attacks[1].broken < 150
    assert [one.replays > 0 for one in counts] == [False, True]


def test_batches_grow_with_the_memory_of_the_card() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    found = robustplug.evaluate(model, task="digits", attacks=["fgsm"], device="cuda")
    assert found.meta["batch_size"] == 512
