"""Long runs: memory, handles and the time of an epoch or a row do not grow with those before."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.api import EpochReport
from robustplug.core.reporting import Silent

ROWS, FEATURES = 16, 4


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Watch(Silent):
    """Note the time, the memory and the handles at every epoch, or at every row."""

    def __init__(self, rows: bool = False) -> None:
        self.rows = rows
        self.seconds: list[float] = []
        self.memory: list[int] = []
        self.handles: list[int] = []
        self._last = time.process_time()

    def note(self) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now
        self.memory.append(resident())
        self.handles.append(handles())

    def epoch(self, report: EpochReport, epochs: int) -> None:
        if not self.rows:
            self.note()

    def attack(self, name: str, done: int, total: int) -> None:
        if self.rows and done >= total:
            self.note()

    def check(self, most_bytes: float, most_slower: float) -> None:
        """Compare the last tenth with the second one; the first warms caches up.

        Args:
            most_bytes: growth of the memory for each epoch or row that is allowed.
            most_slower: factor by which the last may be slower.
        """
        tenth = len(self.seconds) // 10
        early, late = slice(tenth, 2 * tenth), slice(-tenth, None)
        grown = statistics.median(self.memory[late]) - statistics.median(self.memory[early])
        slower = statistics.median(self.seconds[late]) / statistics.median(self.seconds[early])
        print(f"{len(self.seconds)}: {grown / len(self.seconds):.0f} bytes each, {slower:.2f} times as slow")
        assert max(self.handles[tenth:]) <= self.handles[tenth]
        assert grown / len(self.seconds) < most_bytes
        assert slower < most_slower


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(ROWS, FEATURES, generator=generator), torch.arange(ROWS) % 2


def recipe(epochs: int) -> dict[str, Any]:
    return {
        "name": "long",
        "method": {"use": "pgd-at", "vicinity": {"use": "linf", "eps": 0.1}, "perturbation": {"steps": 1}},
        "optimizer": {"use": "sgd", "lr": 0.01},
        "train": {"epochs": epochs, "batch_size": ROWS, "precision": "float32", "device": "cpu"},
        "validate": {"samples": 2, "attack": {"use": "fgsm"}},
        "evaluate": {"samples": 2, "attack": []},
    }


@pytest.mark.parametrize(
    "epochs", [60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_epochs(epochs: int, samples: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    watch = Watch()
    out = tmp_path / "run"
    model = nn.Linear(FEATURES, 2)
    robustplug.train(recipe(epochs), model=model, data=samples, bounds=(0, 1), out=out, reporter=watch)
    assert len(watch.seconds) == epochs
    assert len((out / "metrics.jsonl").read_text().splitlines()) == epochs
    # What is kept of an epoch is its report: 2 KiB, and the noise of the allocator over few epochs.
    watch.check(2048 + 2**20 * 20 / epochs, 1.5 if epochs > 1000 else 4)


@pytest.mark.parametrize(
    "rows", [50, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_rows(rows: int, samples: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    watch = Watch(rows=True)
    scales = [0.1 + number / rows for number in range(rows)]
    suite = {"name": "many", "row": [{"attack": {"use": "pgd", "steps": 1}, "sweep": {"scale": scales}}]}
    robustplug.evaluate(
        nn.Linear(FEATURES, 2),
        data=samples,
        suite=suite,
        threat={"use": "linf", "eps": 0.1},
        out=tmp_path,
        reporter=watch,
    )
    assert len(watch.seconds) >= rows
    watch.check(8192 + 2**20 * 20 / rows, 1.5 if rows > 100 else 4)
