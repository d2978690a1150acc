"""Replayed updates give what updates give that run as they are written, bit for bit, with a stand-in on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.core.reporting import Silent
from robustplug.training import fast
from robustplug.training.optim import Optimizers

from .recording import Recordings
from .runs import merged, outcome, tiny


class Told(Silent):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warn(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recordings]]:
    """Let every run be captured by the stand-in; rates are in tensors, as on CUDA."""
    made: list[Recordings] = []

    def graphs_on(device: torch.device, generators: Sequence[torch.Generator]) -> Recordings:
        made.append(Recordings(generators))
        return made[-1]

    init = Optimizers.__init__

    def with_tensors(self: Optimizers, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.rates_on(torch.device("cpu"), torch.float64)

    monkeypatch.setattr(fast, "graphs_on", graphs_on)
    monkeypatch.setattr(fast, "choose_fast", lambda *_: "capture")
    monkeypatch.setattr("robustplug.training.train.choose_fast", lambda *_: "capture")
    monkeypatch.setattr(Optimizers, "__init__", with_tensors)
    yield made


import sys

if __name__ == "__main__":
    pass
