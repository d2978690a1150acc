"""Iterations of attacks are padded, captured and replayed, and give what they give without all this."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustplug.core.replaying.iterations import _GRAPHS, Iterations, iterations_on
from robustplug.core.replaying.rows import padded_size
from robustplug.core.step import Step
from robustplug.core.types import Batch, View
from robustplug.devices.graphs import Uncapturable

from ..builtin.attacks import step_of
from ..training.recording import Recordings

Iteration = Callable[..., Any]


class Counting(nn.Module):
    """A model whose outputs depend on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1)[:, :10] * self.calls


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] + torch.rand(len(x), 10)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10]


def samples(rows: int, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        torch.rand(rows, 3, 4, 4, generator=rng), torch.arange(rows) % 10, torch.arange(rows), {"kept": True}
    )


class Bed:
    """A model, what runs its iterations, and what was told."""

    def __init__(self, model: nn.Module | None = None, most: int = 12, graphs: bool = True) -> None:
        self.model, self.told = (model or Flat()).eval(), list[str]()
        self.recordings = Recordings([])
        self.iterations = Iterations(self.recordings if graphs else None, most, self.told.append)

    def step(self, rows: int, seed: int = 0) -> tuple[Step, View]:
        batch = samples(rows, seed)
        step = step_of(self.model, batch)
        step.iterations = self.iterations
        return step, View.of(batch, "adv")

    def run(self, iteration: Callable[[Step], Iteration], rows: int, *state: Any, seed: int = 0) -> Any:
        step, view = self.step(rows, seed)
        with step.attack_mode():
            return step.iterate(iteration(step), view, *state)


def outputs(step: Step) -> Iteration:
    return lambda view: step.output(view)


def test_sizes_are_powers_of_two_or_that_of_a_whole_batch() -> None:
    rows = (1, 2, 3, 5, 8, 9, 100, 101, 300)
    assert [padded_size(each, 100) for each in rows] == [1, 2, 4, 8, 8, 16, 100, 128, 512]


def test_without_cuda_nothing_is_padded_or_captured() -> None:
    assert iterations_on(torch.device("cpu"), True, 8, print) is None


@pytest.mark.parametrize("graphs", [True, False])
def test_padding_is_dropped_and_not_counted(graphs: bool) -> None:
    bed, sizes = Bed(graphs=graphs), list[int]()

    def iteration(step: Step) -> Iteration:
        def look(view: View, state: dict[str, Tensor]) -> Any:
            sizes.append(len(view))
            x = view.x.detach().requires_grad_()
            output = step.output(view.replace(x=x))
            gradient = step.gradient((output * float("inf")).sum() + state["shift"], x)
            return {
                "output": output.detach(),
                "sums": [gradient.flatten(1).sum(1) + state["own"]],
                "no": None,
            }

        return look

    for call, rows in enumerate((5, 7, 12, 9, 6, 5, 8)):
        step, view = bed.step(rows, call)
        state = {"own": torch.arange(rows), "shift": torch.tensor(1.0)}
        with step.attack_mode():
            found = step.iterate(iteration(step), view, state)
        assert torch.equal(found["output"], view.x.flatten(1)[:, :10])
        assert torch.equal(found["sums"][0], torch.arange(rows).float())
        assert found["no"] is None
        assert (step.meter.forwards, step.meter.backwards, step.meter.slopes) == (rows, rows, rows * 48)
        assert int(step.meter.lost) == rows * 10
    assert sizes[:3] == [8, 8, 12]
    assert bed.iterations.replays == (2 if graphs else 0)
    assert not bed.told


def test_results_outlast_the_next_replay() -> None:
    bed = Bed()
    found = [bed.run(outputs, 8, seed=seed) for seed in range(6)]
    assert bed.iterations.replays == 3
    assert all(torch.equal(each, samples(8, n).x.flatten(1)[:, :10]) for n, each in enumerate(found))


def test_what_an_iteration_closes_over_has_a_graph_of_its_own() -> None:
    bed = Bed()
    table = torch.arange(10.0)
    for number in (1, 2, 1, 2, 1, 2, 1, 2):

        def iteration(step: Step, number: int = number) -> Iteration:
            shift = table[number]

            def inner(output: Tensor) -> Tensor:
                return output * number

            return lambda view: inner(step.output(view)) + shift

        found = bed.run(iteration, 4)
        assert torch.equal(found, samples(4).x.flatten(1)[:, :10] * number + number)
    # Each call has a tensor of its own, which may be at another place.
    assert bed.iterations.replays == 0
    for number in (1, 2) * 5:

        def scaled(step: Step, number: int = number) -> Iteration:
            def inner(output: Tensor) -> Tensor:
                return output * number

            return lambda view: inner(step.output(view)) + table

        assert torch.equal(bed.run(scaled, 4), samples(4).x.flatten(1)[:, :10] * number + table)
    assert bed.iterations.replays == 4


def test_other_models_modes_and_layouts_have_graphs_of_their_own() -> None:
    bed, changed = Bed(), Bed(nn.Sequential(Flat(), nn.ReLU()))
    for model, layout, grad in (
        (bed.model, torch.contiguous_format, True),
        (changed.model, torch.contiguous_format, True),
        (bed.model, torch.channels_last, True),
        (bed.model, torch.contiguous_format, False),
    ):
        for _ in range(5):
            step, view = bed.step(5)
            step.model = model
            view = view.replace(x=view.x.contiguous(memory_format=layout))
            seen: list[Any] = []

            def iteration(view: View, step: Step = step, seen: list[Any] = seen) -> Any:
                seen.append(view.x.stride())
                return step.output(view), view.x

            with step.attack_mode(), torch.set_grad_enabled(grad):
                output, x = step.iterate(iteration, view)
            assert torch.equal(output, model(view.x))
            assert x.is_contiguous(memory_format=layout)
            assert all(stride[1] == (1 if layout is torch.channels_last else 16) for stride in seen)
    assert len(bed.recordings.made) == 4
    assert bed.iterations.replays == 8


def waits(step: Step) -> Iteration:
    return lambda view: step.output(view) * float(view.x.sum())


def draws(step: Step) -> Iteration:
    return lambda view: step.output(view) + torch.rand(len(view), 10, generator=step.rng)


def draws_from_python(step: Step) -> Iteration:
    return lambda view: step.output(view) + random.random()


@pytest.mark.parametrize(
    ("iteration", "model", "reason"),
    [
        (waits, Flat, "_local_scalar_dense waits for the device"),
        (draws, Flat, "the generator of the attack changes in every iteration"),
        (draws_from_python, Flat, "Python's random generator changes in every iteration"),
        (outputs, Counting, "model.calls changes in every iteration"),
    ],
)
def test_what_a_graph_would_freeze_runs_as_it_is_written_and_is_told(
    iteration: Any, model: type[nn.Module], reason: str
) -> None:
    found = []
    for graphs in (True, False):
        bed = Bed(model(), graphs=graphs)
        random.seed(1)
        found.append([bed.run(iteration, rows, seed=rows) for rows in (5, 6, 7, 8, 5, 4, 3, 4, 3, 4)])
        assert len(bed.told) == (1 if graphs else 0)
        assert all(reason in message for message in bed.told)
        assert bed.iterations.replays == 0
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_draws_of_the_model_are_replayed() -> None:
    found = []
    for graphs in (True, False):
        bed = Bed(Noisy(), graphs=graphs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            found.append([bed.run(outputs, rows, seed=rows) for rows in (5, 6, 7, 8, 5, 4)])
        assert bed.iterations.replays == (2 if graphs else 0)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_an_error_while_it_is_captured_is_told_and_costs_no_result() -> None:
    class Failing(Recordings):
        def capture(self, function: Callable[[], Any]) -> Any:
            raise Uncapturable("memory does not hold the graph beside an update without it")

    bed = Bed()
    bed.iterations.graphs = Failing([])
    for seed in range(6):
        assert torch.equal(bed.run(outputs, 3, seed=seed), samples(3, seed).x.flatten(1)[:, :10])
    assert len(bed.told) == 1
    assert "memory does not hold the graph" in bed.told[0]


def test_what_has_no_row_for_each_sample_runs_on_the_batch_as_it_is() -> None:
    bed, sizes = Bed(), list[int]()

    def iteration(step: Step) -> Iteration:
        def look(view: View, other: Any = None) -> Any:
            sizes.append(len(view))
            return step.output(view)

        return look

    for other in (torch.zeros(2), object(), {"texts": object()}):
        bed.run(iteration, 5, other)
    assert sizes == [5, 5, 5]
    step, view = bed.step(5)
    with step.attack_mode("train"):
        step.iterate(iteration(step), view)
    step.iterate(iteration(step), view)
    assert sizes == [5] * 5


def test_few_graphs_are_kept_and_none_after_the_attack() -> None:
    bed = Bed()

    def at(number: int) -> Callable[[Step], Iteration]:
        return lambda step: lambda view: step.output(view) + number

    with bed.iterations.prepare():
        for number in range(_GRAPHS + 5):
            bed.run(at(number), 2)
        assert len(bed.iterations._kinds) == _GRAPHS
    assert not bed.iterations._kinds
    assert bed.recordings.blocks == 1
