"""The test bench of the checks: a component built from its trial options, on a toy task."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from ..core.batches import epoch_batches
from ..core.calling.meter import Meter
from ..core.method import Method, prepare
from ..core.random import derive, isolated, stream
from ..core.step import Step
from ..core.types import Batch, Feed, ParamGroup, Pass, Progress, TaskInfo, View
from ..devices.processes import start
from ..errors import DataMissing, Refused
from ..plugin.build import build
from ..plugin.component import Component, Kind, MethodOptions, Use, slots
from ..plugin.host import registry
from ..recipe.convert import resolve
from ..recipe.options import Recipe
from ..training.loop import Loop, Means, differentiate
from ..training.optim import Optimizers
from ..training.session import Session
from .toys import OneStep, ToyTask, toy_batchnorm, toy_norm, toy_plain

if TYPE_CHECKING:
    from ..core.task import Task

Context = contextlib.AbstractContextManager[None]

EPOCHS = 2
BATCH_SIZE = 8
SEED = 0


def require(condition: object, message: str) -> None:
    """Fail a check unless a condition holds.

    Raises:
        AssertionError: the condition does not hold.
    """
    if not condition:
        raise AssertionError(message)


def skip_unless(condition: object, reason: str) -> None:
    """Skip a check that does not apply.

    Raises:
        unittest.SkipTest: the condition does not hold.
    """
    if not condition:
        raise SkipTest(reason)


class RadiusMethod(Method[MethodOptions]):
    """The method in which a single slot is tested: every view has radii, eps · {0, 1/2, 1} in turn."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        """Return the batch at its perturbed points."""
        radius = float(self.vicinity.eps) * (point.index % 3).float() / 2
        return [self.perturbation(step, View.of(point, "adv", radius=radius), self.vicinity)]


@dataclass(frozen=True)
class Subject:
    """The component to check.

    Attributes:
        kind, name: kind and name of the component.
        options: options to try, as a TOML table; None for the component's trial options.
    """

    kind: Kind
    name: str
    options: Mapping[str, Any] | None = None

    @property
    def component(self) -> Component:
        """Return the declaration of the component."""
        return registry().get(self.kind, self.name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks that the component is for; empty for any task with classes."""
        component, known = self.component, registry().by_kind()["task"]
        if component.tasks or not component.for_labels or "classes" in component.for_labels:
            return component.tasks
        return tuple(task.name for task in known if task.labels in component.for_labels)

    def own_task(self) -> Task | None:
        """Build the component's first task whose data is there, from trial options; None if it is for any.

        Raises:
            unittest.SkipTest: the data of the task is missing.
        """
        missing = None
        for name in self.tasks:
            try:
                task: Task = build(
                    resolve(Use(name, dict(registry().get("task", name).trial)), "task"), "task"
                )
                return task
            except DataMissing as error:
                missing = missing or error
        if missing is not None:
            raise SkipTest(f"data is missing: {missing}")
        return None

    @property
    def table(self) -> Mapping[str, Any]:
        """Return the options to try."""
        return self.component.trial if self.options is None else self.options

    def build(self, **context: Any) -> Any:
        """Build the component from the options to try."""
        return build(resolve(Use(self.name, dict(self.table)), self.kind), self.kind, **context)

    def method(self, info: TaskInfo) -> Method[Any]:
        """Build the method for a task, or a method with this component in its slot.

        The other slots contain the defaults of all methods and an attack with one step; a loss of rows alone
        gets smoothed labels.
        """
        if self.kind == "method":
            method: Method[Any] = self.build(info=info)
            return method
        options = MethodOptions()
        parts: dict[str, Any] = {}
        for slot in slots(MethodOptions).values():
            if slot.kind == self.kind:
                parts[slot.name] = self.build()
            elif slot.kind == "perturbation":
                parts[slot.name] = OneStep()
            elif slot.kind == "label_map" and self.kind == "loss" and self.component.takes == "rows":
                parts[slot.name] = build(resolve(Use("smooth"), "label_map"), "label_map")
            else:
                parts[slot.name] = build(resolve(getattr(options, slot.name), slot.kind), slot.kind)
        return RadiusMethod(options, **parts)


class Bench:
    """A method, set up on a toy task and model, with everything that one update needs.

    Two benches with the same arguments are identical, bit for bit.

    Args:
        subject: component to check.
        architecture: function from a TaskInfo to a model; a method that needs BatchNorm uses toy_norm
            instead of toy_plain. A component for certain tasks uses the default model of the first one.
        eps: radius of the vicinity; None for its own radius.
        task: task to use; by default the component's first task, or else a ToyTask.
    """

    def __init__(
        self,
        subject: Subject,
        architecture: Callable[[TaskInfo], nn.Module] = toy_batchnorm,
        eps: float | None = None,
        task: Task | None = None,
    ) -> None:
        own = subject.own_task()
        self.task = task or own or ToyTask(SEED)
        if own is not None:
            architecture = default_model(own)
        try:
            groups = self._prepare(subject, architecture, eps)
        except Refused:
            if architecture is not toy_plain:
                raise
            groups = self._prepare(subject, toy_norm, eps)
        self.model.train()
        self.method.state.train()
        defaults = Recipe(task=Use("toy"), method=Use("toy"))
        schedule = build(resolve(defaults.schedule, "schedule"), "schedule")
        self.optimizers = Optimizers(groups, resolve(defaults.optimizer, "optimizer"), schedule)
        self.updates_done = 0

    def _prepare(
        self, subject: Subject, architecture: Callable[[TaskInfo], nn.Module], eps: float | None
    ) -> Sequence[ParamGroup]:
        with isolated(derive(SEED, "model")):
            self.model = architecture(self.task.info)
        with isolated(derive(SEED, "method")):
            self.method = subject.method(self.task.info)
        if eps is not None:
            self.method.vicinity.eps = eps
        with isolated(derive(SEED, "setup")):
            return prepare(self.method, self.model, self.task)

    def feed(self, epoch: int = 0, skip: int = 0) -> Feed:
        """Return the feed of a training epoch of three batches, the last of them smaller."""
        return Feed(epoch=epoch, batch_size=BATCH_SIZE, seed=SEED, shuffle=True, augment=True, skip=skip)

    def batch(self) -> Batch:
        """Return the first training batch."""
        return next(iter(self.task.batches("train", self.feed())))

    def step(self, batch: Batch, pass_: Pass | None = None, progress: Progress | None = None) -> Step:
        """Return the step of the next update, with a meter of its own."""
        rng = stream(SEED, "train", self.updates_done)
        progress = progress or Progress(epochs=EPOCHS, batches=3)
        pass_ = pass_ or self.passes(progress)[0]
        return Step(self.model, self.method, self.task, batch, rng, progress, pass_, Meter())

    def passes(self, progress: Progress) -> Sequence[Pass]:
        """Return the passes that the loop would run on a batch."""
        return self.optimizers.complete(self.method.passes(progress))

    def views(self, step: Step) -> Sequence[View]:
        """Generate the views of a step, and nothing else."""
        return self.method.views(step, self.method.vicinity.sample(step, step.batch))

    def update(self, step: Step, within: Callable[[], Context] = contextlib.nullcontext) -> Sequence[View]:
        """Run one update as the loop does, and return its views.

        Args:
            step: the step of the update.
            within: makes a context in which the method and its slots run, but not the optimizer.
        """
        with within():
            self.optimizers.zero_grad()
            with self.optimizers.updating(step.pass_.update):
                total, views = differentiate(self.method, step)
            self.method.after_backward(step, views)
        loss = float(total.detach())
        require(math.isfinite(loss), f"the loss is {loss} in epoch {step.progress.epoch}")
        self.optimizers.step(step.pass_.update)
        with within():
            self.method.after_step(step, views)
        for memory in self.method.state.memories():
            memory.forget_writes()
        self.updates_done += 1
        return views

    def steps(self, epochs: int = EPOCHS) -> Iterator[Step]:
        """Yield the steps of a short run, one for each pass; the caller runs the updates."""
        batches = epoch_batches(self.task.info.sizes["train"], self.feed())
        for epoch in range(epochs):
            for number, batch in enumerate(self.task.batches("train", self.feed(epoch))):
                at = Progress(epoch, epochs, number, batches, self.updates_done, 0)
                passes = self.passes(at)
                updates = epochs * batches * len(passes)
                for pass_ in passes:
                    done = self.updates_done
                    yield self.step(batch, pass_, Progress(epoch, epochs, number, batches, done, updates))

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all weights, buffers, memories and local tensors."""
        parts = {"model": self.model.state_dict(), "state": self.method.state.state_dict()}
        parts["local"] = dict(self.method.state.local())
        return {f"{part}/{key}": v.detach().clone() for part, own in parts.items() for key, v in own.items()}

    def session(self) -> Session:
        """Return a session of the engine's loop with this model, method and optimizers."""
        processes = start("cpu", "float32")
        inside = {id(parameter) for parameter in self.model.parameters()}
        own = [parameter for parameter in self.optimizers.parameters() if id(parameter) not in inside]
        batches = epoch_batches(self.task.info.sizes["train"], self.feed())
        loop = Loop(
            model=self.model,
            wrapped=None,
            method=self.method,
            task=self.task,
            optimizers=self.optimizers,
            processes=processes,
            seed=SEED,
            epochs=EPOCHS,
            batches=batches,
            channels_last=False,
            average=None,
            own=own,
        )
        return Session(loop, "toy")

    def run(self, session: Session, after_batch: Callable[[], None]) -> None:
        """Train with the engine from the session's current position to the end.

        Args:
            session: session of this bench.
            after_batch: function to call when the session has advanced to the next batch.
        """
        loop = session.loop
        while session.epoch < EPOCHS:
            self.model.train()

            def progressed(progress: Progress) -> None:
                session.batch = progress.batch
                if progress.batch < progress.batches:
                    after_batch()

            batches = self.task.batches("train", self.feed(session.epoch, session.batch))
            size = self.task.info.sizes["train"]
            loop.epoch(session.epoch, session.batch, batches, BATCH_SIZE, size, progressed, lambda: "")
            session.epoch, session.batch, loop.means = session.epoch + 1, 0, Means()
            after_batch()


def default_model(task: Task) -> Callable[[TaskInfo], nn.Module]:
    """Return a function that builds the default model of a task, from the model's trial options."""
    name = task.default_model
    reference = resolve(Use(name, dict(registry().get("model", name).trial)), "model")

    def made(info: TaskInfo) -> nn.Module:
        model: nn.Module = build(reference, "model", info=info)
        return model

    return made


def leaves(tree: Any) -> list[Tensor]:
    """Return the tensors of a tree of mappings, lists, tuples and tensors."""
    if isinstance(tree, Tensor):
        return [tree]
    members = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return [leaf for member in members for leaf in leaves(member)]


def close(first: Any, second: Any, tolerance: float) -> bool:
    """Return whether two outputs agree on their common part; padding may differ."""
    pairs = list(zip(leaves(first), leaves(second), strict=True))
    common = [tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True)) for a, b in pairs]
    return all(
        torch.allclose(a[part], b[part], atol=tolerance) for (a, b), part in zip(pairs, common, strict=True)
    )


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Return some rows of a batch."""
    return Batch(batch.x[rows], batch.y[rows], batch.index[rows])


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that are not identical, bit for bit."""
    names = first.keys() | second.keys()
    return sorted(
        n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])
    )
