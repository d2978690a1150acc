"""What an update leaves outside the device's own tensors is found, wherever it is kept."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustplug.core.random import derive
from robustplug.core.replaying.state import change, other_draws, state_of
from robustplug.core.state import MethodState
from robustplug.core.types import Progress
from robustplug.devices.graphs import Uncapturable
from robustplug.training.running.probes import Changing, NotedProgress

CPU = torch.device("cpu")


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def counted(self) -> int:
        return self.count


class OfAClass:
    count = 0


def closure() -> Callable[[], int]:
    count = 0

    def counting() -> int:
        nonlocal count
        count += 1
        return count

    return counting


def called(part: Any) -> None:
    part()


def set_local(state: MethodState) -> None:
    state.set_local("delta", torch.zeros(3))


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "a number": (lambda: SimpleNamespace(count=1), lambda part: setattr(part, "count", 2)),
    "a text": (lambda: SimpleNamespace(phase="a"), lambda part: setattr(part, "phase", "b")),
    "a new attribute": (SimpleNamespace, lambda part: setattr(part, "count", 2)),
    "a lost attribute": (lambda: SimpleNamespace(count=1), lambda part: delattr(part, "count")),
    "an item of a list": (lambda: [1, [2]], lambda part: part[1].append(3)),
    "an item of a mapping": (lambda: {"a": {"b": 1}}, lambda part: part["a"].update(b=2)),
    "a member of a set": (lambda: {1}, lambda part: part.add(2)),
    "a queue": (lambda: deque([1, 2]), lambda part: part.rotate()),
    "an array": (lambda: np.zeros(3), lambda part: part.fill(1)),
    "a generator of Python": (lambda: random.Random(1), lambda part: part.random()),
    "a generator of NumPy": (lambda: np.random.default_rng(1), lambda part: part.random()),
    "an iterator": (lambda: iter([1, 2, 3]), next),
    "a count": (itertools.count, next),
    "a slot": (Slotted, lambda part: setattr(part, "count", 1)),
    "a variable of a class": (OfAClass, lambda part: setattr(type(part), "count", part.count + 1)),
    "a variable around a function": (closure, called),
    "the object of a bound method": (
        lambda: Slotted().counted,
        lambda part: setattr(part.__self__, "count", 3),
    ),
    "a buffer that another takes the place of": (
        lambda: nn.BatchNorm1d(2),
        lambda part: setattr(part, "running_mean", torch.zeros(2)),
    ),
    "a parameter with other memory": (
        lambda: nn.Linear(2, 2),
        lambda part: setattr(part.weight, "data", part.weight.data.clone()),
    ),
    "a mode of a module": (lambda: nn.Linear(2, 2), lambda part: part.eval()),
    "a local tensor": (MethodState, set_local),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_found(case: str) -> None:
    make, act = CHANGES[case]
    part = make()
    before = state_of({"method": part}, CPU)
    if case not in ("an iterator", "a count"):  # where they stand is not known: they always count as changed
        assert change(before, state_of({"method": part}, CPU)) is None
    act(part)
    place = change(before, state_of({"method": part}, CPU))
    assert place is not None
    assert place.startswith("method")


def write(part: Any) -> None:
    with torch.no_grad():
        part.weight.add_(1)
        part.bias.grad = torch.ones(2)


UNCHANGED: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "values of the device's own tensors": (nn.Linear(2, 2), write),
    "many items, which are data": (list(range(5000)), lambda part: part.__setitem__(3, 7)),
    "what a memory has to exchange": (
        MethodState().per_sample("memory", 5),
        lambda part: part.write(torch.tensor([1]), torch.ones(1)),
    ),
    "a generator of torch, which is seeded for each update": (
        torch.Generator(),
        lambda part: part.manual_seed(3),
    ),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_what_a_graph_repeats_is_no_change(case: str) -> None:
    part, act = UNCHANGED[case]
    before = state_of({"method": part}, CPU)
    act(part)
    assert change(before, state_of({"method": part}, CPU)) is None


def test_values_of_tensors_on_another_device_count() -> None:
    part = SimpleNamespace(count=torch.zeros(()))
    cuda = torch.device("cuda")
    before = state_of({"method": part}, cuda)
    assert change(before, state_of({"method": part}, cuda)) is None
    part.count += 1
    assert change(before, state_of({"method": part}, cuda)) == "method.count"


def test_a_tensor_at_the_address_of_one_that_is_gone_is_another_one() -> None:
    part = SimpleNamespace(last=torch.zeros(1000))
    for _ in range(5):
        before = state_of({"method": part}, CPU)
        part.last = None
        part.last = torch.zeros(1000)
        assert change(before, state_of({"method": part}, CPU)) == "method.last"


def test_circles_end() -> None:
    part = SimpleNamespace(count=0)
    part.me = part
    before = state_of({"method": part}, CPU)
    part.count = 1
    assert change(before, state_of({"method": part}, CPU)) == "method.count"


def test_draws_from_global_generators_are_found() -> None:
    before = other_draws()
    assert change(before, other_draws()) is None
    random.random()
    assert change(before, other_draws()) == "Python's random generator"
    before = other_draws()
    np.random.rand()
    assert change(before, other_draws()) == "NumPy's random generator"


PROGRESS = Progress(2, 10, 3, 7, 17, 70)


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (lambda progress: progress.epoch, {"epoch"}),
        (lambda progress: progress.epoch / progress.epochs, {"epoch", "epochs"}),
        (lambda progress: progress.moment, {"epoch", "epochs", "batch", "batches", "update", "updates"}),
        (lambda progress: progress == PROGRESS, {"epoch", "epochs", "batch", "batches", "update", "updates"}),
        (hash, {"epoch", "epochs", "batch", "batches", "update", "updates"}),
        (repr, {"epoch", "epochs", "batch", "batches", "update", "updates"}),
        (
            lambda progress: vars(progress)["epoch"],
            {"epoch", "epochs", "batch", "batches", "update", "updates"},
        ),
        (lambda progress: isinstance(progress, Progress), set()),
    ],
)
def test_what_is_read_of_the_progress_is_noted_and_is_the_same(
    read: Callable[[Progress], object], names: set[str]
) -> None:
    noted = NotedProgress(PROGRESS)
    assert noted.read() == {}
    assert read(noted) == read(PROGRESS)
    assert noted.read() == {name: getattr(PROGRESS, name) for name in names}


@pytest.mark.parametrize(
    "use",
    [
        lambda seed: derive(seed, "draw"),
        lambda seed: torch.Generator().manual_seed(int(seed)),
        lambda seed: random.Random(seed + 1),
        lambda seed: f"{seed}",
        lambda seed: seed % 7,
        lambda seed: [0, 1][seed],
        lambda seed: seed == 3,
    ],
)
def test_what_changes_in_every_update_cannot_be_read(use: Callable[[Any], object]) -> None:
    with pytest.raises(Uncapturable, match=r"step\.seed is read, which changes from update to update"):
        use(Changing("step.seed"))


def test_what_changes_in_every_update_can_be_handed_on_but_seeds_no_generator() -> None:
    seed: Any = Changing("step.seed")
    kept = {seed: [seed]}
    assert kept[seed][0] is seed
    with pytest.raises(RuntimeError, match="expected a long, but got Changing"):
        torch.Generator().manual_seed(seed)
