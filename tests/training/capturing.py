"""Runs whose updates are replayed by a stand-in for CUDA graphs, and methods that freeze badly."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustplug.core.method import Method
from robustplug.core.random import derive
from robustplug.core.reporting import Silent
from robustplug.core.step import Step
from robustplug.core.types import Batch, Pass, Progress, View
from robustplug.plugin.component import Component, MethodOptions
from robustplug.training import fast, making
from robustplug.training.optim import Optimizers

from .recording import Recordings


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warn(self, message: str) -> None:
        self.messages.append(message)

    @property
    def slower(self) -> list[str]:
        return [message for message in self.messages if "without a CUDA graph" in message]


@contextlib.contextmanager
def capturing() -> Iterator[list[Recordings]]:
    """Capture the updates of all runs in a block, with rates in tensors; yields what recorded each."""
    made: list[Recordings] = []
    init = Optimizers.__init__

    def graphs_on(device: torch.device, generators: Sequence[torch.Generator]) -> Recordings:
        made.append(Recordings(generators))
        return made[-1]

    def with_tensors(self: Optimizers, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.rates_on(torch.device("cpu"), torch.float64)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fast, "graphs_on", graphs_on)
        monkeypatch.setattr(fast, "uncapturable_exchange", lambda device: None)
        monkeypatch.setattr(torch.nn.functional, "one_hot", one_hot)
        monkeypatch.setattr(making, "choose_fast", lambda *_: "capture")
        monkeypatch.setattr(Optimizers, "__init__", with_tensors)
        yield made


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return what torch's function does, which looks at the labels on a CPU, but not on CUDA."""
    return labels.new_zeros((*labels.shape, classes)).scatter_(-1, labels[..., None], 1)


def replays(made: Sequence[Recordings]) -> int:
    return sum(graph.replays for one in made for graph in one.made)


def weighted(view: View, factor: Any) -> View:
    return view.replace(weight=factor)


class Factor(Method[MethodOptions]):
    """Multiply the loss by a factor that subclasses choose; called once in an update."""

    def factor(self, step: Step) -> Any:
        raise NotImplementedError

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        return [weighted(view, self.factor(step)) for view in super().views(step, point)]


class ReadsTheEpoch(Factor):
    def factor(self, step: Step) -> Any:
        return 1.0 / (1 + step.progress.epoch)


class ReadsTheBatch(Factor):
    def factor(self, step: Step) -> Any:
        return 1.0 / (1 + step.progress.batch)


class ReadsTheMoment(Factor):
    def factor(self, step: Step) -> Any:
        return 1.0 / (1 + step.progress.moment)


class ComparesTheProgress(Factor):
    last = Progress()

    def factor(self, step: Step) -> Any:
        return 0.5 if step.progress == self.last else 1.0


class ReadsTheSeed(Factor):
    def factor(self, step: Step) -> Any:
        return derive(step.seed, "factor") / 2**63


class Counts(Factor):
    count = 0

    def factor(self, step: Step) -> Any:
        self.count += 1
        return 1.0 / self.count


class CountsInAClosure(Factor):
    def setup(self, *args: Any) -> Any:
        count = 0

        def factor(step: Step) -> float:
            nonlocal count
            count += 1
            return 1.0 / count

        self.factor = factor  # type: ignore[method-assign]
        return super().setup(*args)


class Draws(Factor):
    def factor(self, step: Step) -> Any:
        return random.random()


class DrawsFromNumPy(Factor):
    def factor(self, step: Step) -> Any:
        return float(np.random.rand())


class ReplacesItsState(Factor):
    def factor(self, step: Step) -> Any:
        last = self.state.get_local("last")
        last = torch.ones(()) if last is None else last * 0.9
        self.state.set_local("last", last)
        return last


class WritesItsState(Factor):
    """Does the same in place, which a graph repeats."""

    def factor(self, step: Step) -> Any:
        last = self.state.get_local("last")
        if last is None:
            last = torch.ones(())
            self.state.set_local("last", last)
        else:
            last.mul_(0.9)
        return last.clone()


class KeepsTheUpdate(Factor):
    at = 0

    def passes(self, progress: Progress) -> Sequence[Pass]:
        self.at = progress.update
        return (Pass(),)

    def factor(self, step: Step) -> Any:
        return 1.0 / (1 + self.at)


class ChangesBetweenEpochs(Factor):
    phase = 0

    def passes(self, progress: Progress) -> Sequence[Pass]:
        self.phase = int(progress.epoch > 0)
        return (Pass(),)

    def factor(self, step: Step) -> Any:
        return 1.0 - 0.5 * self.phase


class Waits(Factor):
    def factor(self, step: Step) -> Any:
        return float(step.batch.x.mean())


class ChoosesRows(Factor):
    def factor(self, step: Step) -> Any:
        return step.batch.x[step.batch.y > 2].mean()


class Declares(Factor):
    needs_sync = True

    def factor(self, step: Step) -> Any:
        return 1.0


class Alternates(Factor):
    """Has two passes, of which one waits for the device."""

    def passes(self, progress: Progress) -> Sequence[Pass]:
        return (Pass("quick"), Pass("slow"))

    def factor(self, step: Step) -> Any:
        return 1.0 if step.pass_.name == "quick" else float(step.batch.x.mean())


class LearnsWithNoise(Factor):
    """Draws from the run's generator and from torch's global one, and remembers each sample."""

    def setup(self, model: Any, task: Any) -> Any:
        self.memory = self.state.per_sample("memory", task.info.training_indices, 0.5)
        return super().setup(model, task)

    def factor(self, step: Step) -> Tensor:
        own = torch.rand(len(step.batch), generator=step.rng)
        return self.memory.read(step.batch.index) + own + torch.rand(len(step.batch))

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        (view,) = views
        assert isinstance(view.weight, Tensor)
        self.memory.write(view.index, view.weight / 3)
        step.log("weight", view.weight)
        step.log("large", view.weight, view.weight > 1)


METHODS: dict[str, type[Factor]] = {kind.__name__: kind for kind in Factor.__subclasses__()}
COMPONENTS = [Component(name.lower(), kind, MethodOptions) for name, kind in METHODS.items()]
