"""The training loop. A method changes it only through its slots and hooks."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.calling.meter import Meter
from ..core.random import derive, isolated, other_generators
from ..core.step import Step
from ..core.task import ShowingTask, score_name
from ..core.types import Batch, Pass, Progress, View
from ..errors import RunError
from .optim import Optimizers
from .running.micro import divided, merged, micro_batches
from .running.pending import Pending
from .running.update import Between, Eager, Outcome, Runner, Update, at_once
from .watch import Watch

if TYPE_CHECKING:
    from ..core.method import Method
    from ..core.task import Task
    from ..core.types import EpochReport
    from ..devices.processes import Processes
    from .running.average import Average


def ignore(part: object) -> None:
    """Check nothing after the call of a component."""


def training_loss(
    method: Method[Any],
    step: Step,
    share: float = 1.0,
    class_weights: Tensor | None = None,
    after: Callable[[object], None] = ignore,
) -> tuple[Tensor, Sequence[View]]:
    """Return the loss of one update, Σ_views mean(weight · ℓ), and the views.

    Args:
        method: the step's method.
        step: the step of this update.
        share: factor that makes the mean over processes the mean over the global batch.
        class_weights: a factor of each class, (K,), for the weights of the views; None for none.
        after: called with each component after its call, to check what it changed.
    """
    step.share, step.class_weights = share, class_weights
    views = views_of(method, step, after)
    return loss_of(step, views, after), views


def differentiate(
    method: Method[Any], step: Step, after: Callable[[object], None] = ignore
) -> tuple[Tensor, Sequence[View]]:
    """Compute the loss of one update and its gradient, and return the loss and the views.

    The arguments are those of `training_loss`.
    """
    views = views_of(method, step, after)
    with method.around_loss(step, views):
        total = loss_of(step, views, after)
        step.backward(total)
    return total, views


def views_of(method: Method[Any], step: Step, after: Callable[[object], None] = ignore) -> Sequence[View]:
    """Return the views of one update; see `training_loss`."""
    point = method.vicinity.sample(step, step.batch)
    after(method.vicinity)
    views = method.views(step, point)
    after(method)
    if step.pass_.input_grad:
        views = [view.replace(x=view.x.detach().requires_grad_()) for view in views]
    return views


def loss_of(step: Step, views: Sequence[View], after: Callable[[object], None] = ignore) -> Tensor:
    """Return Σ_views mean(weight · ℓ), and log loss and score by role; see `training_loss`."""
    total: Tensor | None = None
    for view in views:
        output = None
        if view.penalty is None:
            output = step.output(view)
            after(step.method.output_map)
            target = step.target(view)
            after(step.method.label_map)
            losses = step.loss(view, output, target)
            after(step.method.loss)
        else:
            losses = view.penalty(step, view)
        term = (step.weight(view) * losses).mean() * step.share
        total = term if total is None else total + term
        if len(views) > 1:
            step.log(f"loss/{view.role}", losses)
        if view.scored and view.penalty is None:
            with torch.no_grad():
                # A view that neither a vicinity nor a perturbation has moved is clean, whatever its role.
                role = "clean" if view.x is step.batch.x else view.role
                name = f"{score_name(step.task)}/{role}"
                step.log(name, step.score(view, output), view.info.get("scored"))
        after(step.task)
    assert total is not None, "a method returned no view"
    return total


NOTHING: Mapping[str, Tensor] = {}
# First part of the names of quantities that show a method at work.
MECHANISM = "mechanism"


def mechanism_of(history: Sequence[EpochReport]) -> dict[str, float]:
    """Return what showed the method at work in the last epoch, by name; see `Method.mechanism`."""
    means = history[-1].train if history else {}
    prefix = f"{MECHANISM}/"
    return {name.removeprefix(prefix): value for name, value in means.items() if name.startswith(prefix)}


@dataclass
class Means:
    """Average the logged values of an epoch's steps, without waiting for the device at each step."""

    sums: dict[str, Tensor | float] = field(default_factory=dict)
    rows: dict[str, Tensor | float] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor], rows: int, counted: Mapping[str, Tensor] = NOTHING) -> None:
        """Add means over a number of rows, or over fewer of them, by name."""
        for name, value in values.items():
            exact = torch.float32 if value.device.type == "mps" else torch.float64
            own: Tensor | int = counted.get(name, rows)
            self.sums[name] = self.sums.get(name, 0.0) + value.to(exact) * own
            self.rows[name] = self.rows.get(name, 0.0) + own

    def totals(self) -> dict[str, list[float]]:
        """Return [sum, rows] by name."""
        return {name: [float(value), float(self.rows[name])] for name, value in self.sums.items()}

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: total / rows for name, (total, rows) in self.totals().items() if rows}

    @classmethod
    def of(cls, totals: dict[str, list[float]]) -> Means:
        """Return the object that has these `totals`."""
        return cls({name: v[0] for name, v in totals.items()}, {name: v[1] for name, v in totals.items()})


def check_finite(total: float, where: str, index: Tensor, kept: str, mend: str = "") -> None:
    """Stop a run whose loss is not finite.

    Raises:
        RunError: the loss is not finite; the message names the batch and the last good checkpoint.
    """
    if not math.isfinite(total):
        ids = ", ".join(str(number) for number in index[:8].tolist())
        raise RunError(
            f"the loss is {total} at {where} (samples {ids}{', …' if len(index) > 8 else ''}). {kept} "
            f"{mend}Lower optimizer.lr, or set train.clip_grad_norm."
        )


@dataclass
class Loop:
    """Train epoch by epoch.

    Attributes:
        model: the plain module, in training mode.
        wrapped: the module that synchronises gradients between processes; None in a single process.
        method, task, optimizers, processes: those of the run.
        seed: seed of the run.
        epochs, batches: number of epochs of the run, and of global batches in an epoch.
        channels_last: whether images are channels-last in memory.
        average: the average of the weights that the run leaves; None for none.
        own: parameters of the method outside the model.
        meter: counter of this process's forward and backward passes.
        update: number of finished updates.
        means: means of the current epoch.
        class_weights: a factor of each class's loss, (K,); None for none.
        attacked: returns what attacks call in the place of the model; None for the model itself.
        micro_batch: largest number of rows that a process computes at once; None for all.
        runner: what runs the updates; each one as it is written, until another is set.
        ready: augments and converts a batch as a part of its update; None for batches that are ready.
        generator: this process's generator, which is seeded for each update.
    """

    model: nn.Module
    wrapped: nn.Module | None
    method: Method[Any]
    task: Task
    optimizers: Optimizers
    processes: Processes
    seed: int
    epochs: int
    batches: int
    channels_last: bool
    average: Average | None
    own: list[nn.Parameter]
    meter: Meter = field(default_factory=Meter)
    update: int = 0
    means: Means = field(default_factory=Means)
    class_weights: Tensor | None = None
    attacked: Callable[[nn.Module], nn.Module] | None = None
    micro_batch: int | None = None
    lr: float = 0.0
    ready: Callable[[Batch], Batch] | None = None
    watch: Watch = field(init=False)
    runner: Runner = field(init=False)
    generator: torch.Generator = field(init=False)
    _unchecked: tuple[Pending, Progress, Tensor] | None = None

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.processes.device)
        self.watch = Watch(self.model, self.method, self.task)
        self.runner = Eager(self.compute)

    def epoch(
        self,
        epoch: int,
        first: int,
        batches: Iterable[Batch],
        batch_size: int,
        sample_count: int,
        after_batch: Callable[[Progress], None],
        kept: Callable[[], str],
    ) -> None:
        """Train on the rest of an epoch.

        Args:
            epoch: number of the epoch.
            first: number of the first batch.
            batches: this process's rows of the batches from `first` on.
            batch_size: rows of a global batch.
            sample_count: rows of the whole epoch.
            after_batch: called after each batch with the progress made.
            kept: returns a sentence on the last good checkpoint, for errors.

        Raises:
            RunError: the loss is not finite.
            Refused: a component changed what it must leave alone.
        """
        self.watch.start()
        with other_generators(derive(self.seed, "epoch", epoch, first) % 2**32), self.runner.prepare():
            for number, batch in enumerate(batches, start=first):
                rows = min(batch_size, sample_count - number * batch_size)
                share = len(batch) * self.processes.world / rows
                batch = batch if self.ready is not None else self._laid_out(batch)
                passes = self.optimizers.complete(self.method.passes(self._progress(epoch, number, 1)))
                for pass_ in passes:
                    progress = self._progress(epoch, number, len(passes))
                    self.lr = self.optimizers.set_rates(progress)
                    parts = micro_batches(rows, self.processes.world, self.micro_batch)
                    self._update(batch, pass_, progress, share, rows == batch_size, parts, kept)
                after_batch(self._progress(epoch, number + 1, len(passes)))
        self.check_last_loss(kept)
        if self.average is not None:
            self.average.after_epoch(self.model, epoch)

    def _laid_out(self, batch: Batch) -> Batch:
        if not self.channels_last:
            return batch
        return replace(batch, x=batch.x.contiguous(memory_format=torch.channels_last))

    def _progress(self, epoch: int, batch: int, passes: int) -> Progress:
        updates = self.epochs * self.batches * passes
        return Progress(epoch, self.epochs, batch, self.batches, self.update, updates)

    def _update(
        self,
        batch: Batch,
        pass_: Pass,
        progress: Progress,
        share: float,
        whole: bool,
        parts: int,
        kept: Callable[[], str],
    ) -> None:
        seed, last = derive(self.seed, "samples", self.update), progress.batch == progress.batches - 1
        update = Update(batch, pass_, progress, share, seed, whole, last, self.watch.close, parts)
        self.rng(self.update)
        # Dropout and similar layers can only draw from the global generator.
        own = derive(self.seed, "global", self.processes.rank, self.update)
        with isolated(own, self.processes.device):
            outcome = self.runner.run(update)
        # The loss of the previous update is available by now: reading it does not stall the device.
        self.check_last_loss(kept)
        self._unchecked = (Pending(outcome.total), progress, batch.index.clone())  # tasks reuse buffers
        self.processes.synchronize(self.method.state.memories())
        self.means.add({"loss": outcome.total / share, **outcome.logged}, len(batch), outcome.counted)
        self.update += 1

    def compute(self, update: Update, watched: bool = True, between: Between = at_once) -> Outcome:
        """Compute an update: all that a device does in it.

        Args:
            update: the update; the generators are seeded for it.
            watched: whether to check what the components change.
            between: calls what a graph of the update cannot hold.
        """
        if self.ready is not None:
            update = replace(update, batch=self._laid_out(self.ready(update.batch)))
        watch, pass_ = self.watch, update.pass_
        after: Callable[[object], None] = watch.after if watched else ignore
        if watched:
            watch.update(update.batch, update.progress)
        steps: list[tuple[Step, Tensor, Sequence[View]]] = []
        self.optimizers.zero_grad()
        with self._updating(pass_):
            for first_row, batch in divided(update.batch, update.parts):
                step = self._step(update, batch, first_row)
                with self.processes.synchronizing(self.wrapped, step.closes):
                    total, views = differentiate(self.method, step, after)
                if update.parts > 1:  # what the gradient did not need would stay in memory
                    step.forget()
                steps.append((step, total.detach(), views))
        if self.processes.world > 1:
            # What reads the weights and does not run the model, such as bounds, is not averaged by itself.
            averaged = steps[-1][0].averaged
            if alone := self.own if averaged else list(self.optimizers.parameters()):
                between(partial(self.processes.average_gradients, alone))
        for step, _, views in steps:
            self.method.after_backward(step, views)
        after(self.method)
        (at_once if self.optimizers.in_graphs else between)(partial(self.optimizers.step, pass_.update))
        for step, _, views in steps:
            self.method.after_step(step, views)
        if update.last:  # once in an epoch it costs nothing
            with torch.no_grad():
                for step, _, views in steps:
                    shown = self.task.mechanism(step.batch) if isinstance(self.task, ShowingTask) else NOTHING
                    for name, values in {**shown, **self.method.mechanism(step, views)}.items():
                        step.log(f"{MECHANISM}/{name}", values)
        if watched:
            watch.done()
        if self.average is not None:
            self.average.after_update(self.model, update.progress, self.update)
        return merged([(len(step.batch), Outcome(t, step.logged, step.counted)) for step, t, _ in steps])

    def _step(self, update: Update, batch: Batch, first_row: int) -> Step:
        """Return the step of an update, or of one of its micro-batches."""
        step = Step(self.model, self.method, self.task, batch, self.generator, update.progress, update.pass_)
        step.meter, step.wrapped, step.seed = self.meter, self.wrapped, update.seed
        step.share = update.share * len(batch) / len(update.batch) if update.parts > 1 else update.share
        step.class_weights, step.average = self.class_weights, self.processes.average
        step.attacked = self.attacked
        step.first_row, step.closes = first_row, first_row + len(batch) == len(update.batch)
        return step

    def rng(self, update: int) -> torch.Generator:
        """Return this process's generator, seeded for an update."""
        return self.generator.manual_seed(derive(self.seed, "train", self.processes.rank, update))

    def _updating(self, pass_: Pass) -> contextlib.AbstractContextManager[None]:
        # The synchronisation of gradients waits for those of all parameters.
        return (
            contextlib.nullcontext() if self.processes.world > 1 else self.optimizers.updating(pass_.update)
        )

    def check_last_loss(self, kept: Callable[[], str]) -> None:
        """Stop if the loss of the last update was not finite.

        Raises:
            RunError: the loss is not finite; the message names epoch, batch and samples.
        """
        if self._unchecked is not None:
            total, at, index = self._unchecked
            self._unchecked = None
            where = f"epoch {at.epoch + 1}, batch {at.batch + 1} of {at.batches}"
            mend = 'Set train.precision = "float32". ' if self.processes.bfloat16 else ""
            check_finite(total.read(), where, index, kept(), mend)


class Clock:
    """Measure a run's wall time across resumes.

    Args:
        before: seconds of earlier sessions.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._started = before, time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds so far."""
        return self._before + time.perf_counter() - self._started
