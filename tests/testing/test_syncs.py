"""The kit finds what a CUDA graph cannot hold, names its place, and lets the rest pass; on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import Batch, Component, Method, MethodOptions, ParamGroup, Step, Task, View
from robustplug.builtin.vicinities import Linf
from robustplug.core.random import log_gamma
from robustplug.plugin.component import Kind, NoOptions
from robustplug.testing import OneStep, Subject
from robustplug.testing.checks_syncs import COPIES, READS, SHAPES, updates_need_no_host

from . import broken

Register = Callable[[Kind, Component], None]
Operation = Callable[[Any, Tensor, Tensor], Any]
TABLE = torch.linspace(0, 1, 3)
ARRAY = np.zeros(3, dtype=np.float32)


# Of a step, the inputs x (N, C, H, W) and the labels y.
FORBIDDEN: dict[str, tuple[Operation, str]] = {
    "item": (lambda step, x, y: x.sum().item(), READS),
    "float": (lambda step, x, y: float(x.sum()), READS),
    "int": (lambda step, x, y: int(y[0]), READS),
    "bool": (lambda step, x, y: bool((x > 0).any()), READS),
    "if": (lambda step, x, y: 1 if (x > 0).all() else 0, READS),
    "a count": (lambda step, x, y: range(y[0]), READS),
    "a slice": (lambda step, x, y: x[: y[0]], READS),
    "a position": (lambda step, x, y: x[y[0]], READS),
    "in": (lambda step, x, y: 1 in y, READS),
    "format": (lambda step, x, y: f"{x[0, 0, 0, 0]:.3f}", READS),
    "tolist": (lambda step, x, y: y.tolist(), READS),
    "numpy": (lambda step, x, y: x.detach().numpy(), READS),
    "asarray": (lambda step, x, y: np.asarray(x.detach()), READS),
    "cpu": (lambda step, x, y: x.cpu(), READS),
    "to cpu": (lambda step, x, y: x.to("cpu"), READS),
    "to cpu by name": (lambda step, x, y: x.to(device="cpu"), READS),
    "equal": (lambda step, x, y: torch.equal(x, x + 1), READS),
    "allclose": (lambda step, x, y: torch.allclose(x, x + 1), READS),
    "multinomial": (lambda step, x, y: x.abs().flatten(1).multinomial(1, generator=step.rng), READS),
    "inverse": (lambda step, x, y: torch.linalg.inv(torch.eye(3, device=x.device)), READS),
    "one-hot of as many classes as there are": (lambda step, x, y: F.one_hot(y), READS),
    "nonzero": (lambda step, x, y: y.nonzero(), SHAPES),
    "where": (lambda step, x, y: torch.where(y > 0), SHAPES),
    "masked_select": (lambda step, x, y: x.masked_select(x > 0), SHAPES),
    "rows": (lambda step, x, y: x[y > 0], SHAPES),
    "bytes": (lambda step, x, y: x[(y >= 0).to(torch.uint8)], SHAPES),
    "columns": (lambda step, x, y: x[:, x[0, :, 0, 0] > 0], SHAPES),
    "writing rows": (lambda step, x, y: x.clone().__setitem__(y >= 0, x), SHAPES),
    "unique": (lambda step, x, y: torch.unique(y), SHAPES),
    "unique rows": (lambda step, x, y: torch.unique(x.flatten(1), dim=0), SHAPES),
    "runs": (lambda step, x, y: torch.unique_consecutive(y), SHAPES),
    "bincount": (lambda step, x, y: y.bincount(), SHAPES),
    "repeat": (lambda step, x, y: x.repeat_interleave(y, 0), SHAPES),
    "tensor": (lambda step, x, y: torch.tensor(0.5, device=x.device), COPIES),
    "as_tensor": (lambda step, x, y: torch.as_tensor([0.5, 1.0], device=x.device), COPIES),
    "new_tensor": (lambda step, x, y: x.new_tensor([0.5]), COPIES),
    "from_numpy": (lambda step, x, y: torch.from_numpy(ARRAY), COPIES),
    "a list as an index": (lambda step, x, y: x[[0, 0]], COPIES),
    "an array as an index": (lambda step, x, y: x[:, np.array([0, 1])], COPIES),
    "writing to a list": (lambda step, x, y: x.clone().__setitem__((slice(None), [0, 1]), 0.0), COPIES),
    "a table": (lambda step, x, y: TABLE.to(x.device), COPIES),
    "a table like x": (lambda step, x, y: TABLE.to(x), COPIES),
    "a view of a table": (lambda step, x, y: TABLE.view(1, -1).to(device=x.device), COPIES),
    "as_tensor of a table": (lambda step, x, y: torch.as_tensor(TABLE, device=x.device), COPIES),
}
ALLOWED: dict[str, Operation] = {
    "numbers": lambda step, x, y: (2.5 * x + 1).clamp(0, 1) ** 2 - 0.5,
    "full": lambda step, x, y: torch.full((), 0.5, device=x.device),
    "arange": lambda step, x, y: torch.arange(len(x), device=x.device),
    "like": lambda step, x, y: torch.empty_like(x).uniform_(generator=step.rng),
    "permutation": lambda step, x, y: x[torch.randperm(len(x), generator=step.rng, device=x.device)],
    "gamma": lambda step, x, y: log_gamma(x.detach().abs() + 0.01, step.rng),
    "where": lambda step, x, y: torch.where(x > 0.5, x, 0.0),
    "writing a number to rows": lambda step, x, y: x.clone().__setitem__(y > 0, 0.0),
    "writing to places": lambda step, x, y: x.clone().__setitem__(torch.arange(2, device=x.device), 0.0),
    "writing to a slice": lambda step, x, y: x.clone().__setitem__(slice(0, 2), x[:2]),
    "one-hot": lambda step, x, y: F.one_hot(y, 3),
    "one-hot by name": lambda step, x, y: F.one_hot(y, num_classes=3),
    "one-hot of some": lambda step, x, y: F.one_hot(y.clamp(0, 1), 2),
    "repeat": lambda step, x, y: x.repeat_interleave(y.clamp(1, 1), 0, output_size=len(x)),
    "type": lambda step, x, y: x.to(torch.float64).to(x.dtype),
    "where it is": lambda step, x, y: (x.to(x.device), y.to(x.device), (x + 1).to(x.device)),
    "a weight": lambda step, x, y: next(step.model.parameters()).to(x.device),
    "shape": lambda step, x, y: x[: len(x) // 2].shape[0] + y.dim(),
    "rows by position": lambda step, x, y: x[y.argsort()][0],
}
OPERATION: Operation = ALLOWED["numbers"]


class Operates(OneStep):
    """An attack that also does what a test wants."""

    def __init__(self, options: object) -> None:
        pass

    def __call__(self, step: Step, view: View, vicinity: Any) -> View:
        OPERATION(step, view.x, view.y)
        return super().__call__(step, view, vicinity)


class Found(NamedTuple):
    passed: bool
    skipped: bool
    detail: str


def outcome(factory: Any, kind: Kind, register: Register) -> Found:
    """Return the outcome of the check for a component of this module."""
    options: dict[Kind, type[Any]] = {"method": MethodOptions, "vicinity": broken.Ball}
    where = f"{__name__}:{factory.__name__}"
    register(kind, Component("waits", where, options.get(kind, NoOptions), "waits"))
    try:
        updates_need_no_host(Subject(kind, "waits"))
    except AssertionError as error:
        return Found(False, False, str(error))
    except SkipTest as reason:
        return Found(True, True, str(reason))
    return Found(True, False, "")


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_graph_cannot_hold_is_found(
    name: str, robustplug_register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, reason = FORBIDDEN[name]
    monkeypatch.setitem(globals(), "OPERATION", operation)
    found = outcome(Operates, "perturbation", robustplug_register)
    assert not found.passed
    assert f"{__file__}:{operation.__code__.co_firstlineno}: " in found.detail
    assert reason in found.detail
    assert not [other for other in (READS, SHAPES, COPIES) if other != reason and other in found.detail]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_graph_can_hold_passes(
    name: str, robustplug_register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "OPERATION", ALLOWED[name])
    found = outcome(Operates, "perturbation", robustplug_register)
    assert (found.passed, found.detail) == (True, "")


class DrawsByTheHost(Linf):
    def sample(self, step: Step, batch: Batch) -> Batch:
        batch.y.tolist()
        return batch


class ReadsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].mul(float(gradients[0].isfinite().all()))


class LooksAtGradients(broken.Slot):
    def __call__(self, step: Step, view: View) -> Any:
        return ReadsBackwards.apply(step.forward(view.x))


class WeighsByTheHost(broken.Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none").mul(view.y.amax().item())


class ReadsAfterBackward(Method[Any]):
    def after_backward(self, step: Step, views: Sequence[View]) -> None:
        assert all(bool(p.grad.isfinite().all()) for p in step.model.parameters() if p.grad is not None)


class ReadsAfterStep(Method[Any]):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        self.largest = max(float(view.x.detach().max()) for view in views)


@pytest.mark.parametrize(
    ("kind", "factory", "line"),
    [
        ("vicinity", DrawsByTheHost, "batch.y.tolist()"),
        ("output_map", LooksAtGradients, "gradients[0].mul(float"),
        ("loss", WeighsByTheHost, "view.y.amax().item()"),
        ("method", ReadsAfterBackward, "bool(p.grad"),
        ("method", ReadsAfterStep, "max(float"),
    ],
)
def test_every_part_of_an_update_is_watched(
    kind: Kind, factory: Any, line: str, robustplug_register: Register
) -> None:
    found = outcome(factory, kind, robustplug_register)
    assert not found.passed
    number = int(found.detail.split(f"{__file__}:")[1].split(":")[0])
    assert line in Path(__file__).read_text(encoding="utf-8").splitlines()[number - 1]


class Says(ReadsAfterStep):
    needs_sync = True


def test_what_says_that_it_waits_is_not_checked(robustplug_register: Register) -> None:
    found = outcome(Says, "method", robustplug_register)
    assert (found.passed, found.skipped) == (True, True)
    assert "needs_sync" in found.detail


class MakesAConstantOnce(Method[Any]):
    """Right: the first update makes what the others use."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        self.table: Tensor | None = None
        self.state.register_buffer("scale", torch.tensor([1.0, 0.5]))
        return super().setup(model, task)

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        if self.table is None:
            self.table = torch.tensor([1.0, 2.0], device=views[0].x.device)
        self.table.to(views[0].x.device).add(self.state.get_buffer("scale").to(views[0].x.device))


class MovesATableOnce(Method[Any]):
    """Right: as above, from what is on the host."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        self.tables: dict[torch.device, Tensor] = {}
        return super().setup(model, task)

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        device = views[0].x.device
        if device not in self.tables:
            self.tables[device] = TABLE.to(device)
        self.tables[device].add(1)


@pytest.mark.parametrize("factory", [MakesAConstantOnce, MovesATableOnce])
def test_the_first_update_may_make_what_the_others_use(factory: Any, robustplug_register: Register) -> None:
    found = outcome(factory, "method", robustplug_register)
    assert (found.passed, found.skipped) == (True, False)


class ReadsALot(Method[Any]):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        y = views[0].y
        int(y[0])
        int(y[0])
        int(y[0])
        int(y[0])
        int(y[0])
        int(y[0])
        int(y[0])


def test_of_many_places_the_first_are_listed(robustplug_register: Register) -> None:
    found = outcome(ReadsALot, "method", robustplug_register)
    assert found.detail.count(f"{__file__}:") == 5
    assert found.detail.endswith("; and 2 more")
