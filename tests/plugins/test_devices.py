"""On CUDA: tensors of updates are on one device, and no shape follows from data; with tensors that are fake.

Fake tensors have shapes, types and devices, and no values: what reads one, or mixes devices, raises. Their
gradients need a real device, so those are zeros here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from robustplug.core.calling.meter import Meter
from robustplug.core.method import needs_sync
from robustplug.core.step import Step
from robustplug.core.types import Progress
from robustplug.testing import Bench, Subject
from robustplug.testing.toys import toy_norm
from robustplug.training.loop import training_loss
from robustplug_sprout.method import DirichletLabels

from .test_syncs import CASES, PGD

CUDA = torch.device("cuda", 0)
ALL: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("erm", "fast-at", "bilateral", "stability", "sprout", "n-fgsm")),
    *(
        (name, {"perturbation": PGD})
        for name in ("trades", "cat", "interpolated", "robmask", "advprop", "mart", "dkl")
    ),
    ("gradalign", {"inner": {"use": "fast-at"}}),
    *(
        ("iaat", {"perturbation": PGD, "warmup": warmup, **options})
        for warmup in (0, 2)
        for options in ({}, {"variant": "official"}, {"misclassified": "attacked"})
    ),
    *(case for case in CASES if case[0] != "free-at"),  # it reads the gradient of its inputs
]


class Generator(torch.Generator):
    """A generator that says that it is on CUDA."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA


class Undrawn(TorchFunctionMode):
    """Leave out generators, which have to be on the device of what they draw."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*args, **{key: value for key, value in (kwargs or {}).items() if key != "generator"})


def fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def move(module: nn.Module) -> None:
    """Put a module on CUDA, as `.to` does."""
    module._apply(fake)  # type: ignore[no-untyped-call]


@pytest.fixture
def no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Step, "gradient", lambda step, total, x, retain=False, graph=False: torch.zeros_like(x)
    )
    monkeypatch.setattr(Step, "backward", lambda step, total: None)


@pytest.mark.table(14)
@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.usefixtures("no_gradients")
def test_an_update_is_on_one_device(name: str, options: dict[str, Any]) -> None:
    bench = Bench(Subject("method", name, options), toy_norm)
    bench.method.vicinity.within([0.0, 0.1, 0.0], [1.0, 1.0, 0.9])  # type: ignore[attr-defined]
    at = Progress(0, 2, 1, 3, 1, 6)
    batch = bench.batch()
    # What the first call of a model finds out by values; see `call`.
    training_loss(bench.method, bench.step(batch, progress=at))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        move(bench.model)
        move(bench.method.state)
        if isinstance(bench.method.label_map, DirichletLabels):  # a real move keeps the parameter
            bench.method.label_map.raw = bench.method.state.get_parameter("beta")
        batch = dataclasses.replace(batch, x=fake(batch.x), y=fake(batch.y), index=fake(batch.index))
    for pass_ in bench.passes(at):
        step = Step(bench.model, bench.method, bench.task, batch, Generator(), at, pass_, Meter())
        # Bounds of the inputs are on the host before the first update.
        with Undrawn(), FakeTensorMode(allow_non_fake_inputs=True):
            total, views = training_loss(bench.method, step)
            bench.method.after_step(step, views)
        assert total.device == CUDA
        assert all(view.x.device == CUDA for view in views)
    assert not needs_sync(bench.method)
