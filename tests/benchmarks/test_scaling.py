"""The benchmark of scaling: what it makes of its measurements, which are given here."""

from __future__ import annotations

from typing import Any

import pytest
import scaling

import robustplug
from robustplug.plugin.build import build
from robustplug.recipe.load import read_recipe


def found(**seconds: float) -> dict[str, Any]:
    cases = {"a": (1, 64), "b": (1, 128), "c": (2, 128), "d": (2, 256)}
    updates = [
        {"processes": processes, "rows": rows, "seconds": seconds[name], "all": [seconds[name]]}
        for name, (processes, rows) in cases.items()
    ]
    return scaling.judged({"updates": updates, "gradient_bytes": 4_000_000, "exchange_seconds": 0.01})


def test_two_processes_are_compared_with_the_model() -> None:
    judged = found(a=0.11, b=0.21, c=0.13, d=0.24)
    # Ten milliseconds, and one for each 0.64 rows.
    assert judged["cost"]["fixed"] == pytest.approx(0.01)
    assert judged["strong"]["speedup"] == pytest.approx(0.21 / 0.13)
    # Half the rows, the fixed part, and the exchange over the loopback.
    assert judged["strong"]["predicted"] == pytest.approx(0.21 / (0.11 + 0.01))
    assert judged["weak"]["efficiency"] == pytest.approx(0.21 / 0.24)
    assert judged["weak"]["predicted"] == pytest.approx(0.21 / (0.21 + 0.01))
    table = list(scaling.lines(judged))
    assert "| 2 | 128 | 130 ms | strong: 1.62 times as fast, the model says 1.75 |" in table
    assert any(line.startswith("| 512 (predicted) | a device has no row |") for line in table)


def test_the_gradients_are_those_of_the_recipe() -> None:
    info = robustplug.build("task", "digits").info
    reference = read_recipe(scaling.RECIPE).model
    assert reference is not None
    model = build(reference, "model", info=info)
    assert scaling.gradient_bytes() == 4 * sum(each.numel() for each in model.parameters())
    assert scaling.updates_of(128) == -(-info.sizes["train"] // 128)
