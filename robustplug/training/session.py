"""The state of a run between two batches: capture it in a checkpoint, and restore it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.types import EpochReport
from ..errors import RunError
from ..runs.checkpoint import Checkpoint, pack, unpack
from ..subjects.trained import load_part
from .loop import Clock, Loop, Means

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Session:
    """Hold everything that changes during training.

    Attributes:
        loop: the training loop, with model, method and optimizers.
        recipe_hash: hash of the resolved recipe; a checkpoint of another recipe is refused.
        epoch, batch: the next batch to train on.
        history: reports of the finished epochs.
        best: name of the best checkpoint so far and its score.
        earlier: hashes of the recipes that the run had before it was extended; their checkpoints continue.
    """

    loop: Loop
    recipe_hash: str
    epoch: int = 0
    batch: int = 0
    history: list[EpochReport] = field(default_factory=list)
    best: tuple[str, float] | None = None
    clock: Clock = field(default_factory=Clock)
    earlier: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Return the name of a checkpoint taken now; names sort by age."""
        return f"epoch-{self.epoch:05d}-batch-{self.batch:07d}"

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
            "history": [asdict(report) for report in self.history],
            "best": self.best,
            "seconds": self.clock.seconds(),
            "local": shapes,
            "optimizers": pack(loop.optimizers.state(), "optimizer", tensors),
        }
        return tensors, meta

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint.

        Raises:
            RunError: it belongs to another recipe, number of processes, or version of the method.
        """
        loop, meta = self.loop, checkpoint.meta
        if meta["recipe"] not in {self.recipe_hash, *self.earlier}:
            raise RunError(f"checkpoint {checkpoint.name} belongs to another recipe than that of the run")
        if meta["world"] != loop.processes.world:
            raise RunError(
                f"the run was trained by {meta['world']} processes and can only be resumed by the same "
                f"number, not by {loop.processes.world}"
            )
        self.restore_weights(checkpoint)
        self._restore_local(checkpoint)
        loop.optimizers.load_state(unpack(meta["optimizers"], checkpoint.tensors))
        loop.update = meta["update"]
        # The main process continues the sums over all processes.
        main = loop.processes.main
        loop.means = Means.of(meta["means"] if main else {key: [0.0, 0.0] for key in meta["means"]})
        loop.meter.forwards, loop.meter.backwards = meta["passes"] if main else (0, 0)
        self.epoch, self.batch = meta["epoch"], meta["batch"]
        self.history = [EpochReport(**report) for report in meta["history"]]
        self.best = None if meta["best"] is None else (meta["best"][0], meta["best"][1])
        self.clock = Clock(meta["seconds"])

    def restore_weights(self, checkpoint: Checkpoint) -> None:
        """Restore only the model, the averaged weights and the method's state.

        Raises:
            RunError: the checkpoint's tensors do not fit this model and method.
        """
        for part, module in self._modules().items():
            load_part(checkpoint, part, module)

    def _local(self) -> dict[str, Tensor]:
        """Return the tensors that differ between processes: the method's local ones, running statistics."""
        tensors = {f"method/{key}": value for key, value in self.loop.method.state.local().items()}
        if self.loop.processes.world > 1:
            for part, module in self._modules().items():
                tensors |= {f"{part}/{key}": value for key, value in module.named_buffers()}
        return tensors

    def _restore_local(self, checkpoint: Checkpoint) -> None:
        """Restore this process's part of the tensors that differ between processes."""
        rank, device = self.loop.processes.rank, self.loop.processes.device
        own = self._local()
        for name, shapes in checkpoint.meta["local"].items():
            sizes = [math.prod(shape) for shape in shapes]
            parts = torch.split(checkpoint.tensors[f"local/{name}"], sizes)
            mine = parts[rank].reshape(shapes[rank]).to(device)
            part, _, key = name.partition("/")
            if part == "method":
                self.loop.method.state.set_local(key, mine)
            else:
                with torch.no_grad():
                    own[name].copy_(mine)

    def _modules(self) -> dict[str, nn.Module]:
        loop = self.loop
        modules: dict[str, nn.Module] = {"model": loop.model, "state": loop.method.state}
        if loop.ema is not None:
            modules["ema"] = loop.ema
        return modules

    def weights(self) -> nn.Module:
        """Return the model to evaluate: the averaged one, if any."""
        return self.loop.model if self.loop.ema is None else self.loop.ema.module
