"""Measure a few updates of a recipe on this machine, with fewer rows where all do not fit into the time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...core.modules import evaluating
from ...core.protocols import SelfTrained
from ...core.types import Batch, take
from ...devices.determinism import deterministic
from ...devices.precision import fitting_threads
from ...errors import RunError, out_of_memory
from ..fit_batch import process_memory
from ..train import Training

if TYPE_CHECKING:
    from ...recipe.options import Recipe
    from ..session import Session

# BatchNorm needs two rows.
_FEWEST = 2
# Factor of the learning rate while updates are measured.
_RATE = 1e-6
# Epochs whose passes differ by less count as the same: passes may depend on the data.
_SAME = 0.1
# Part of the time for updates of growing size; the rest is for counting the passes of other epochs.
_TIMED = 0.6


@dataclass(frozen=True)
class Measured:
    """Hold what a short measurement found.

    Attributes:
        device: the device, in words.
        seconds: seconds of an update of the last epoch, by its number of rows.
        passes: (forwards, backwards) of a row, by epoch; only epochs that were tried.
        parameters: bytes of the trained parameters, and so of their gradients.
        state: bytes of weights, gradients, buffers and the optimizer's state.
        row: bytes that an update needs for each row at once; 0 where that cannot be measured.
        memories: bytes of per-sample memories for each training sample.
        checkpoint: bytes of a checkpoint without these.
        samples, validation: training and validation samples of the task; None for a number that is not known.
        relabelled: whether the labels were what the model said, as the passes depend on whether it is right.
    """

    device: str
    seconds: Mapping[int, float]
    passes: Mapping[int, tuple[float, float]]
    parameters: int
    state: int
    row: float
    memories: int
    checkpoint: int
    samples: int
    validation: int | None
    relabelled: bool = False


def measure(recipe: Recipe, rows: int, seconds: float) -> Measured:
    """Measure updates of a recipe on this machine.

    Args:
        recipe: the recipe.
        rows: rows of a device, which are tried if time and memory suffice.
        seconds: time for the updates, about.

    Raises:
        RunError: the model learns by itself, or not even the smallest update fits into memory.
    """
    train = dataclasses.replace(recipe.train, batch_size=max(_FEWEST, rows))
    training = Training(_harmless(dataclasses.replace(recipe, train=train)), Path())
    if isinstance(training.parts.model, SelfTrained):
        raise RunError("the model learns by itself, from all samples at once: there are no updates to plan")
    x = training.data.first().x
    try:
        with fitting_threads(x), deterministic(train.deterministic is not False):
            return _measured(training, recipe.train.epochs - 1, seconds)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise RunError(
            f"not even an update of {_FEWEST} rows fits into memory here: plan on a larger machine, or take "
            "smaller inputs with --shape"
        ) from error


def _harmless(recipe: Recipe) -> Recipe:
    """Return a recipe whose updates hardly change the model: few rows at the rate of many would diverge."""
    options = recipe.optimizer.options
    if not isinstance(getattr(options, "lr", None), float):
        return recipe
    slow = dataclasses.replace(recipe.optimizer, options=dataclasses.replace(options, lr=_RATE * options.lr))
    return dataclasses.replace(recipe, optimizer=slow)


def _measured(training: Training, last: int, seconds: float) -> Measured:
    """Measure updates of a training, of which `last` is the last epoch."""
    session, size = training._session(), training.data.size
    batch = training.data.first()
    # An untrained model is wrong, and methods that choose samples by that would spend next to nothing.
    relabelled = not training.parts.method.cost().known and training.parts.task.info.classes is not None
    cuda = training.processes.device.type == "cuda"

    def update(epoch: int, count: int) -> tuple[float, float, tuple[float, float]]:
        """Return the seconds, the bytes and the passes of a row of an update."""
        rows = torch.arange(count, device=batch.index.device)
        part = Batch(take(batch.x, rows), take(batch.y, rows), batch.index[rows])
        if relabelled:
            with torch.no_grad(), evaluating(training.parts.model):
                part = dataclasses.replace(part, y=training.parts.model(part.x).argmax(1))
        loop = session.loop
        before = loop.meter.forwards, loop.meter.backwards
        held = _used(cuda)
        began = time.perf_counter()
        loop.epoch(epoch, 0, [part], count, size, lambda _: None, lambda: "")
        if cuda:
            torch.cuda.synchronize()
        took = time.perf_counter() - began
        after = loop.meter.forwards, loop.meter.backwards
        forwards, backwards = ((b - a) / count for a, b in zip(before, after, strict=True))
        return took, max(0.0, _peak(cuda) - held), (forwards, backwards)

    began = time.perf_counter()
    times, bytes_, passes = dict[int, float](), dict[int, float](), dict[int, tuple[float, float]]()
    count = min(_FEWEST, len(batch))
    # The first one makes the optimizer's state as well; it counts only where there is no time for a second.
    times[count], bytes_[count], passes[last] = update(last, count)
    while time.perf_counter() - began + 2.5 * times[max(times)] <= _TIMED * seconds:
        try:
            times[count], bytes_[count], passes[last] = update(last, count)
        except Exception as error:
            if not out_of_memory(error):
                raise
            break
        if count == len(batch):
            break
        count = min(2 * count, len(batch))
    few = min(times)

    def left() -> bool:
        return time.perf_counter() - began + times[few] < seconds

    if last and left():
        passes[0] = update(0, few)[2]
    # Where the cost changes between the first and the last epoch, find when, as long as there is time.
    low, high = (0 if 0 in passes else last), last
    while abs(_change(passes[low], passes[high])) > _SAME and high - low > 1 and left():
        middle = (low + high) // 2
        passes[middle] = update(middle, few)[2]
        nearer = abs(_change(passes[low], passes[middle])) < abs(_change(passes[middle], passes[high]))
        low, high = (middle, high) if nearer else (low, middle)
    found = _sizes(session, size)
    # More rows than those of a micro-batch need no more memory.
    micro = training.parts.recipe.train.micro_batch or max(bytes_)
    fewest = min(bytes_)
    most = max(rows for rows in bytes_ if rows <= max(micro, fewest))
    slope = (bytes_[most] - bytes_[fewest]) / (most - fewest) if most > fewest else 0.0
    row = slope if slope > 0 else bytes_[most] / most
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    checked = training.parts.task.info.sizes.get("validation", 0)
    return Measured(
        name, times, passes, row=row, samples=size, validation=checked, relabelled=relabelled, **found
    )


def _change(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return by which part of the greater of two epochs their passes differ."""
    first, second = sum(one), sum(other)
    return (second - first) / max(first, second)


def _sizes(session: Session, samples: int) -> dict[str, int]:
    """Return the sizes of what a device, and a checkpoint, holds."""
    loop = session.loop
    trained = sum(p.numel() * p.element_size() for p in loop.optimizers.parameters())
    held = sum(
        value.numel() * value.element_size() for value in (*loop.model.parameters(), *loop.model.buffers())
    )
    memories = sum(
        value.numel() * value.element_size()
        for value in loop.method.state.buffers()
        if samples in value.shape
    )
    tensors, _ = session.capture()
    whole = sum(value.numel() * value.element_size() for value in tensors.values())
    optimizer = sum(v.numel() * v.element_size() for k, v in tensors.items() if k.startswith("optimizer"))
    return {
        "parameters": trained,
        "state": held + trained + optimizer,
        "memories": round(memories / samples),
        "checkpoint": whole - memories,
    }


def _used(cuda: bool) -> float:
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    try:
        return process_memory("VmRSS", reset=True)
    except OSError:  # the system does not let a process measure its highest use: 0 bytes are found
        return math.inf


def _peak(cuda: bool) -> float:
    return float(torch.cuda.max_memory_allocated()) if cuda else process_memory("VmHWM")
