"""The state of a run between two batches: capture it in a checkpoint, and restore it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.random import derive, isolated
from ..core.types import EpochReport
from ..errors import RunError
from ..runs.checkpoint import Checkpoint, pack, unpack
from ..runs.heads import name_of
from ..subjects.trained import load_part
from .loop import MECHANISM, Clock, Loop, Means

if TYPE_CHECKING:
    from torch import Tensor


def dealt(parts: Sequence[Tensor], rank: int, world: int) -> Tensor:
    """Return the rows of a process of a tensor with a row for each row of its batches.

    Args:
        parts: the tensors of the processes that saved them. Row i of process r of w belongs to row r + i·w of
            the global batch.
        rank, world: the process, and the number of processes now.
    """
    if len(parts) == world or not parts[0].dim():
        return parts[rank if len(parts) == world else 0]
    places = [(row, number) for number, part in enumerate(parts) for row in range(len(part))]
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    chosen = [starts[number] + row for row, number in sorted(places)[rank::world]]
    return torch.cat(list(parts))[torch.tensor(chosen, dtype=torch.int64)]


def pooled(parts: Sequence[Tensor], rank: int, world: int) -> Tensor:
    """Return a process's running statistics: its own, or with another number of processes the mean of all."""
    if len(parts) == world:
        return parts[rank]
    return torch.stack(list(parts)).mean(0) if parts[0].is_floating_point() else parts[0]


@dataclass
class Session:
    """Hold everything that changes during training.

    Attributes:
        loop: the training loop, with model, method and optimizers.
        recipe_hash: hash of the resolved recipe; a checkpoint of another recipe is refused.
        epoch, batch: the next batch to train on.
        history: reports of the finished epochs.
        best: name of the best checkpoint so far and its score.
        score: score of the checkpoint at the end of the last epoch; None if it was not measured.
        earlier: hashes of the recipes that the run had before it was extended; their checkpoints continue.
        batches_with: returns the number of batches of an epoch with a number of processes.
    """

    loop: Loop
    recipe_hash: str
    epoch: int = 0
    batch: int = 0
    history: list[EpochReport] = field(default_factory=list)
    best: tuple[str, float] | None = None
    score: float | None = None
    clock: Clock = field(default_factory=Clock)
    earlier: frozenset[str] = frozenset()
    batches_with: Callable[[int], int] = lambda world: 0
    _peak: EpochReport | None = field(default=None, init=False)
    _seen: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        """Return the name of a checkpoint taken now; names sort by age."""
        return name_of(self.epoch, self.batch)

    def close_epoch(self, report: EpochReport, score: float | None) -> EpochReport:
        """Add the report of an epoch whose checkpoint comes next, and return it with `best`."""
        # Without this, an epoch without a number would be the best for ever.
        self.score = score if score is not None and math.isfinite(score) else None
        if self.score is not None and (self.best is None or self.score > self.best[1]):
            self.best = (self.name, self.score)
            report = replace(report, best=True)
        self.history.append(report)
        return report

    def decisive(self) -> list[EpochReport]:
        """Return the reports on which `collapsed` depends: the most robust one so far, and the last."""
        for report in self.history[self._seen : -1]:
            measured = "robust" in report.validation and "accuracy/adv" in report.train
            best = None if self._peak is None else self._peak.validation["robust"]
            if measured and (best is None or report.validation["robust"] > best):
                self._peak = report
        self._seen = max(self._seen, len(self.history) - 1)
        return [*([] if self._peak is None else [self._peak]), *self.history[-1:]]

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the JSON part of a checkpoint; call it on all processes."""
        loop, processes = self.loop, self.loop.processes
        tensors: dict[str, Tensor] = {}
        for part, module in self._modules().items():
            for key, value in module.state_dict().items():
                tensors[f"{part}/{key}"] = value.detach().to("cpu", copy=True).contiguous()
        shapes: dict[str, Any] = {}
        for key, value in self._local().items():
            # Shapes may differ between processes, so flat values are gathered.
            tensors[f"local/{key}"] = processes.gather(value.reshape(-1)).to("cpu", copy=True)
            shape = torch.tensor([1, *value.shape], device=processes.device)
            shapes[key] = processes.gather(shape[None])[:, 1:].tolist()
        totals = self.loop.means.totals()
        flat = processes.total([number for pair in totals.values() for number in pair])
        forwards, backwards = processes.total([float(loop.meter.forwards), float(loop.meter.backwards)])
        meta = {
            "recipe": self.recipe_hash,
            "world": processes.world,
            "epoch": self.epoch,
            "batch": self.batch,
            "update": loop.update,
            "means": {key: flat[2 * n : 2 * n + 2] for n, key in enumerate(totals)},
            "passes": [int(forwards), int(backwards)],
            "best": self.best,
            "score": None if self.batch else self.score,
            "seconds": self.clock.seconds(),
            "local": shapes,
            "optimizers": pack(loop.optimizers.state(), "optimizer", tensors),
        }
        return tensors, meta

    def close_average(self, inputs: Iterable[Any]) -> None:
        """Give the average of the weights its running statistics, and note how far it is from the last ones.

        Args:
            inputs: the training inputs of the epoch, in batches.
        """
        loop, average = self.loop, self.loop.average
        if average is None:
            return
        if average.begun:
            # Dropout can only draw from the global generator.
            with isolated(derive(loop.seed, "running statistics", self.epoch), loop.processes.device):
                loop.meter.forwards += average.estimate(inputs)
        loop.means.add({f"{MECHANISM}/average": average.distance(loop.model)}, 1)

    def check_world(self, checkpoint: Checkpoint) -> None:
        """Refuse a number of processes with which an epoch would have other batches than the run has.

        Raises:
            RunError: it is such a number.
        """
        there, here = checkpoint.meta["world"], self.loop.processes.world
        before = self.loop.batches if there == here else self.batches_with(there)
        if before != self.loop.batches:
            raise RunError(
                f"{there} processes have {before} batches an epoch, and {here} would have "
                f"{self.loop.batches}, since a last batch with fewer rows than processes is left out: resume "
                f"the run with {there} processes"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint; the reports of the epochs are not part of it.

        Raises:
            RunError: it belongs to another recipe or version of the method.
        """
        loop, meta = self.loop, checkpoint.meta
        if meta["recipe"] not in {self.recipe_hash, *self.earlier}:
            raise RunError(f"checkpoint {checkpoint.name} belongs to another recipe than that of the run")
        self.restore_weights(checkpoint)
        self._restore_local(checkpoint)
        loop.optimizers.load_state(unpack(meta["optimizers"], checkpoint.tensors))
        loop.update = meta["update"]
        # The main process continues the sums over all processes.
        main = loop.processes.main
        loop.means = Means.of(meta["means"] if main else {key: [0.0, 0.0] for key in meta["means"]})
        loop.meter.forwards, loop.meter.backwards = meta["passes"] if main else (0, 0)
        self.epoch, self.batch = meta["epoch"], meta["batch"]
        self.best = None if meta["best"] is None else (meta["best"][0], meta["best"][1])
        self.score = meta["score"]
        self.clock = Clock(meta["seconds"])

    def restore_weights(self, checkpoint: Checkpoint) -> None:
        """Restore only the model, the averaged weights and the method's state.

        Raises:
            RunError: the checkpoint's tensors do not fit this model and method.
        """
        for part, module in self._modules().items():
            load_part(checkpoint, part, module)

    def _local(self) -> dict[str, Tensor]:
        """Return the tensors that differ between processes: the method's local ones, running statistics.

        The memories of samples, which may be large, are the same on all processes after each update.
        """
        tensors = {f"method/{key}": value for key, value in self.loop.method.state.local().items()}
        if self.loop.processes.world > 1:
            same = {id(memory.values) for memory in self.loop.method.state.memories()}
            tensors |= {name: value for name, value in self._buffers().items() if id(value) not in same}
        return tensors

    def _buffers(self) -> dict[str, Tensor]:
        return {
            f"{part}/{key}": value
            for part, module in self._modules().items()
            for key, value in module.named_buffers()
        }

    def _restore_local(self, checkpoint: Checkpoint) -> None:
        """Restore this process's part of the tensors that differ between processes."""
        processes, buffers = self.loop.processes, self._buffers()
        for name, shapes in checkpoint.meta["local"].items():
            flat = torch.split(checkpoint.tensors[f"local/{name}"], [math.prod(shape) for shape in shapes])
            parts = [values.reshape(shape) for values, shape in zip(flat, shapes, strict=True)]
            part, _, key = name.partition("/")
            if part == "method":
                mine = dealt(parts, processes.rank, processes.world)
                self.loop.method.state.set_local(key, mine.to(processes.device))
            else:
                with torch.no_grad():
                    buffers[name].copy_(pooled(parts, processes.rank, processes.world))

    def _modules(self) -> dict[str, nn.Module]:
        loop = self.loop
        modules: dict[str, nn.Module] = {"model": loop.model, "state": loop.method.state}
        if loop.average is not None:
            modules["ema"] = loop.average.kept
        return modules

    def weights(self) -> nn.Module:
        """Return the model to evaluate: the average, once there is one."""
        average = self.loop.average
        return self.loop.model if average is None or not average.begun else average.kept.module
