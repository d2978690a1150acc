"""Our updates: the very loop of `robustplug train`, on given batches."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .device import Machine
from .floors import Passes

if TYPE_CHECKING:
    from robustplug.api import ArrayTask
    from robustplug.core.reporting import Reporter
    from robustplug.training.loop import Loop
    from robustplug.training.train import Training

FAST = ("off", "capture", "compile+capture")
TASK = "benchmark-images"


def methods(steps: int) -> dict[str, tuple[dict[str, Any], Passes]]:
    """Return the options of the bundled methods for images, and the passes of their updates.

    Methods around methods, and those with a second network, have no hand-written passes to compare with.

    Args:
        steps: steps of PGD, where a method uses it.
    """
    pgd = {"perturbation": {"steps": steps}}
    return {
        "erm": ({}, Passes()),
        "pgd-at": (pgd, Passes(steps)),
        "trades": (pgd, Passes(steps, looks=1, views=2)),
        "fast-at": ({}, Passes(1, training=True)),
        "n-fgsm": ({}, Passes(1, training=True)),
        "free-at": ({"replays": 4}, Passes(updates=4, input_grad=True)),
        "cat": (pgd, Passes(steps, looks=1)),
        "sprout": ({}, Passes()),
        "stability": ({}, Passes(views=2)),
        "bilateral": ({}, Passes(1, looks=2)),
        "interpolated": (pgd, Passes(steps, views=2)),
        "advprop": (pgd, Passes(steps, views=2)),
        "robmask": (pgd, Passes(steps, views=2)),
        "mart": (pgd, Passes(steps, views=2)),
        "dkl": (pgd, Passes(steps, looks=1, views=2)),
        # On a CPU its attacks leave out rows that need none.
        "iaat": ({**pgd, "warmup": 0}, Passes(3 * steps, looks=3)),
    }


def settings(**train: Any) -> dict[str, Any]:
    """Return the settings of training that this version knows."""
    from robustplug.recipe.options import TrainOptions

    known = {item.name for item in dataclasses.fields(TrainOptions)}
    return {name: value for name, value in train.items() if name in known}


def knows(name: str) -> bool:
    """Return whether recipes have a setting of training."""
    return name in settings(**{name: None})


class Ours:
    """Run updates of a method in the loop of training.

    Args:
        machine: the machine.
        method: name of the method.
        rows: rows of a batch.
        fast: value of `train.fast`.
        precision: value of `train.precision`.
        batches: batches of an epoch; the last one has one row fewer if `ragged`.
        ragged: see `batches`.

    Attributes:
        notes: what training tells, such as why an update is not captured.

    Raises:
        RunError, RecipeError: the setting cannot be used.
    """

    def __init__(
        self,
        machine: Machine,
        method: str,
        rows: int,
        fast: str = "off",
        precision: str = "bfloat16",
        batches: int = 24,
        ragged: bool = False,
    ) -> None:
        from robustplug.api import Component, NoOptions
        from robustplug.plugin.host import registered
        from robustplug.recipe.load import recipe_from_mapping
        from robustplug.training.train import Training

        self.machine, self.rows, self.batches = machine, rows, batches
        options, self.passes = methods(machine.sizes.steps)[method]
        self.size = rows * batches - ragged
        task = images_task(self.size, machine.sizes.side)
        recipe = {
            "name": "benchmark",
            "task": {"use": TASK},
            "model": machine.sizes.model,
            "method": {"use": method, **options},
            "optimizer": {"use": "sgd", "lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4},
            "train": settings(
                epochs=1,
                batch_size=rows,
                precision=precision,
                device=machine.device.type,
                fast=machine.fast(fast),
                deterministic=True,
            ),
        }
        self.notes: list[str] = []
        with registered("task", Component(TASK, lambda options: task, NoOptions, "random images")):
            self.training: Training = Training(
                recipe_from_mapping(recipe), Path(), reporter=noting(self.notes)
            )
        self.loop: Loop = self.training._session().loop
        self._raw = self.loop.ready is not None
        self._static = [self.training.data.first()] * batches

    def epoch(self, data: bool = False, after: Callable[[int], None] = lambda batch: None) -> None:
        """Make the updates of an epoch.

        Args:
            data: whether each is on its own augmented batch, as in training, and not all on one that is on
                the device already.
            after: called after each update with the number of updates of the epoch so far.
        """
        batches = self.training.data.batches(0, raw=self._raw) if data else self._static
        with self.machine.deterministic():
            self.loop.epoch(
                0, 0, batches, self.rows, self.size, lambda progress: after(progress.batch), lambda: ""
            )

    def milliseconds(self, left: Callable[[], float], data: bool = False) -> float:
        """Return the median over epochs of the time of an update, after an epoch of warm-up.

        The first updates of an epoch, and the last one, are not counted: some of them run as they are
        written, which an epoch of CIFAR-10 does with 2 of 391.

        Args:
            left: seconds that are left.
            data: as for `epoch`.
        """
        first, last = min(4, self.batches - 2), self.batches - 1
        times: list[float] = []
        began = 0.0

        def after(batch: int) -> None:
            nonlocal began
            if batch in (first, last):
                self.machine.wait()
                now = time.perf_counter()
                if batch == last:
                    times.append((now - began) / (last - first))
                began = now

        for number in range(1 + self.machine.sizes.rounds):
            self.epoch(data, after)
            if number and left() < 2 * times[-1] * self.batches:
                break
        return 1e3 * statistics.median(times[1:])

    @property
    def replays(self) -> int | None:
        """Return the updates that were replays of a graph; None if this way to run them has none."""
        runner: Any = getattr(self.loop, "runner", None)
        while runner is not None and not hasattr(runner, "replays"):
            runner = getattr(runner, "inner", None)
        return None if runner is None else int(runner.replays)

    @property
    def counted(self) -> tuple[float, float]:
        """Return the forward and backward passes for each row of a batch so far."""
        updates = self.loop.update / len(self.loop.method.passes(self.loop._progress(0, 0, 1)))
        rows = self.rows * updates
        return self.loop.meter.forwards / rows, self.loop.meter.backwards / rows

    def digest(self) -> str:
        """Return the SHA-256 of the weights, the method's state and the logged means."""
        found = hashlib.sha256(repr(self.loop.means.totals()).encode())
        for part in (self.loop.model, self.loop.method.state):
            for name, value in part.state_dict().items():
                found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def noting(notes: list[str], first: Callable[[], None] = lambda: None) -> Reporter:
    """Return a reporter that only keeps warnings.

    Args:
        notes: where to.
        first: called after the first update.
    """
    from robustplug.core.reporting import Silent
    from robustplug.core.types import Progress

    class Noting(Silent):
        begun = False

        def batch(self, progress: Progress, means: Mapping[str, float]) -> None:
            if not self.begun:
                self.begun = True
                first()

        def warn(self, message: str) -> None:
            notes.append(message)

    return Noting()


def images_task(rows: int, side: int) -> ArrayTask:
    """Return random images with the augmentation of CIFAR-10."""
    from robustplug.api import ArrayTask
    from robustplug.builtin.tasks.augment import Augmentation

    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=rng)
    y = torch.randint(0, 10, (rows,), generator=rng)
    y[:10] = torch.arange(10)[:rows]
    few = x[:32], y[:32]
    data = {"train": (x, y), "validation": few, "test": few}
    return ArrayTask(data, classes=10, augmentation=Augmentation(pad=4, flip=True))  # type: ignore[arg-type]


def runnable(fasts: Sequence[str], say: Callable[[str, str], None]) -> list[str]:
    """Return the ways to run updates that this version has."""
    if knows("fast"):
        return list(fasts)
    say("ours, captured and compiled", "this version has no train.fast")
    return [fast for fast in fasts if fast == "off"]
