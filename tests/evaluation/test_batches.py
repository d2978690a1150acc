"""The rows of a batch follow from the memory of a GPU, never from what else goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import robustplug
from robustplug.evaluation import batches
from robustplug.evaluation.batches import DEFAULT, MOST, grown, rows_of_batch

from .test_evaluate import evaluation

GIBIBYTE = 2**30


@pytest.mark.parametrize(
    ("need", "memory", "samples", "rows"),
    [
        (GIBIBYTE, 80 * GIBIBYTE, 10_000, 2048),
        (GIBIBYTE, 80 * GIBIBYTE, 1000, 1024),
        (GIBIBYTE, 80 * GIBIBYTE, 257, 512),
        (GIBIBYTE, 80 * GIBIBYTE, 256, 256),
        (GIBIBYTE, 16 * GIBIBYTE, 10_000, 512),
        (GIBIBYTE, 15 * GIBIBYTE, 10_000, 256),
        (10 * GIBIBYTE, 16 * GIBIBYTE, 10_000, 256),
        (2**20, 80 * GIBIBYTE, 10_000, MOST),
    ],
)
def test_a_batch_is_doubled_as_often_as_memory_and_samples_allow(
    need: int, memory: int, samples: int, rows: int
) -> None:
    assert grown(DEFAULT, need, memory, samples) == rows


def test_on_a_cpu_a_batch_has_the_rows_that_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> int:
        raise AssertionError("memory was measured")

    monkeypatch.setattr(batches, "peak_memory", never)
    for name in ("reset_peak_memory_stats", "memory_allocated", "get_device_properties", "Stream"):
        monkeypatch.setattr(torch.cuda, name, never)
    assert rows_of_batch(evaluation(), "test", DEFAULT, None) == DEFAULT
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    attacks = ["fgsm", "apgd-ce", "square"]
    found = robustplug.evaluate(model, task="digits", attacks=attacks, samples=5)
    assert "batch_size" not in found.meta
