"""Evaluate a plain module under attacks; every result is checked before it counts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..component import Use, slots
from ..method import Objective
from ..random import derive, isolated, stream
from ..registry import registry
from ..step import Meter, Step
from ..types import AttackResult, Batch, Feed, Split, View, take
from .processes import Processes, in_float32
from .reporting import Reporter, Silent

if TYPE_CHECKING:
    from ..protocols import Loss, Perturbation, Task, Vicinity


@dataclass(frozen=True)
class Attack:
    """Name an attack of an evaluation.

    Attributes:
        label: for the table, for example "pgd (steps=50, restarts=5)".
        options: resolved options, as a recipe would write them.
        perturbation: the attack.
    """

    label: str
    options: Mapping[str, Any]
    perturbation: Perturbation


def attack_label(reference: Use) -> str:
    """Return a component's name with the options that differ from their defaults."""
    component = registry().get("perturbation", reference.name)
    default = component.options()
    notes = []
    for item in dataclasses.fields(component.options):
        value = getattr(reference.options, item.name)
        if value == getattr(default, item.name):
            continue
        if item.name in slots(component.options):
            value = value.name
        notes.append(f"{item.name}={value:.4g}" if isinstance(value, float) else f"{item.name}={value}")
    return f"{reference.name} ({', '.join(notes)})" if notes else reference.name


def plain_objective(loss: Loss) -> Objective:
    """Return the objective of an evaluation: the model's own outputs against the true labels."""
    return Objective(lambda step, view: view.y, lambda step, view: step.forward(view.x), loss)


def regroup(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Join batches of tensors into batches of `size` rows and a last, smaller one."""
    held: list[Batch] = []
    rows = 0
    for batch in batches:
        if not len(batch):
            continue
        if not isinstance(batch.x, Tensor):
            yield batch
            continue
        held.append(batch)
        rows += len(batch)
        while rows >= size:
            joined = _join(held)
            yield _rows(joined, slice(0, size))
            held = [_rows(joined, slice(size, None))]
            rows -= size
    if rows:
        yield _join(held)


def _join(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(*(torch.cat([getattr(b, name) for b in batches]) for name in ("x", "y", "index")))


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.index[rows])


@dataclass
class Evaluation:
    """Run attacks one after the other, each on the samples that the ones before left standing.

    Attributes:
        model: plain module; evaluated in eval mode and float32, and put back as it was.
        task: gives the samples and scores outputs.
        vicinity: the threat model.
        loss: what attacks ascend unless they have a loss of their own.
        seed: of the attacks' noise.
        processes: batches are shared out over them.
        reporter: hears of progress.
    """

    model: nn.Module
    task: Task
    vicinity: Vicinity
    loss: Loss
    seed: int
    processes: Processes
    reporter: Reporter = dataclasses.field(default_factory=Silent)

    def run(
        self, split: Split, attacks: Sequence[Attack], batch_size: int, samples: int | None = None
    ) -> tuple[tuple[AttackResult, ...], tuple[int, ...]]:
        """Evaluate; return the results, "clean" first, and how many rows each sample came through.

        Args:
            split: which samples.
            attacks: in this order.
            batch_size: rows of one model call.
            samples: only the first so many.
        """
        size = min(self.task.info.sizes[split], samples or self.task.info.sizes[split])
        flags = [(module, module.training) for module in self.model.modules()]
        survived = torch.zeros(size, dtype=torch.int64)
        results: list[AttackResult] = []
        try:
            self.model.eval()
            with in_float32(self.model), isolated(derive(self.seed, "evaluate"), self.processes.device):
                for number, attack in enumerate((None, *attacks)):
                    feed = Feed(
                        batch_size=batch_size,
                        rank=self.processes.rank,
                        world=self.processes.world,
                        samples=samples,
                        device=str(self.processes.device),
                    )
                    results.append(self._row(split, feed, attack, number, survived))
        finally:
            for module, training in flags:
                module.training = training
        return tuple(results), tuple(survived.tolist())

    def _row(
        self, split: Split, feed: Feed, attack: Attack | None, number: int, survived: Tensor
    ) -> AttackResult:
        started, meter = time.perf_counter(), Meter()
        label = "clean" if attack is None else attack.label
        size, attempted, rejected, done = len(survived), 0, 0, 0
        right: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]

        def standing() -> Iterator[Batch]:
            for batch in self.task.batches(split, feed):
                rows = survived[batch.index.cpu()] == number
                yield take_batch(batch, rows.to(batch.index.device))

        for chunk, batch in enumerate(regroup(standing(), feed.batch_size)):
            rng = stream(self.seed, "evaluate", number, chunk, feed.rank, device=self.processes.device)
            held, thrown = self._holds(batch, attack, rng, meter)
            right.append(batch.index[held].cpu())
            attempted, rejected, done = attempted + len(batch), rejected + thrown, done + len(batch)
            if self.processes.main:
                self.reporter.attack(label, done * feed.world, size)
        standing_now = self.processes.gather(torch.cat(right).to(self.processes.device)).cpu()
        survived[standing_now] += 1
        counts = [meter.forwards, meter.backwards, attempted, rejected]
        forwards, backwards, tried, left = self.processes.total([float(count) for count in counts])
        accuracy = len(standing_now) / size
        return AttackResult(
            label,
            {} if attack is None else attack.options,
            accuracy,
            int(tried) - len(standing_now),
            int(tried),
            int(left),
            forwards / size,
            backwards / size,
            time.perf_counter() - started,
        )

    def _holds(
        self, batch: Batch, attack: Attack | None, rng: torch.Generator, meter: Meter
    ) -> tuple[Tensor, int]:
        step = Step(
            self.model, plain_objective(self.loss), self.task, batch, rng, meter=meter, evaluating=True
        )
        view = View.of(batch, "clean" if attack is None else "adv")
        legal = torch.ones(len(batch), dtype=torch.bool, device=batch.index.device)
        if attack is not None:
            origin = view
            view = attack.perturbation(step, view, self.vicinity)
            # What the attack says counts for nothing: the original labels, origins and radii do.
            view = origin.replace(x=view.x)
            legal = self.vicinity.contains(view.x, view.origin, step.radii(view, self.vicinity))
        with torch.no_grad():
            held = step.score(view, step.output(view))
        return held | ~legal, int((~legal).sum())


def take_batch(batch: Batch, rows: Tensor) -> Batch:
    """Return some rows of a batch: boolean (N,)."""
    return Batch(take(batch.x, rows), take(batch.y, rows), batch.index[rows])
