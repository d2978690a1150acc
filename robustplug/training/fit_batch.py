"""Find the largest batch whose update fits into memory."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..core.protocols import SelfTrained
from ..errors import RunError, out_of_memory
from ..files.bounds import free_memory
from .train import Training

if TYPE_CHECKING:
    from ..core.reporting import Reporter
    from ..recipe.options import Recipe

# Updates are tried from about this many rows on: fewer never fill a device, and BatchNorm needs two.
_FEW = 8
# Share of the free memory that an update may need; the rest is for validation, and for larger samples.
_SHARE = 0.8
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def batch_sizes(rows: int, samples: int) -> list[int]:
    """Return the numbers of rows that are tried: `rows` times powers of two, from 2 up to `samples`."""
    found = [min(rows, samples)]
    while found[0] % 2 == 0 and found[0] > 2:
        found.insert(0, found[0] // 2)
    while 2 * found[-1] <= samples:
        found.append(2 * found[-1])
    return found


def largest_fitting(sizes: Sequence[int], need: Callable[[int], float | None], free: float) -> int | None:
    """Return the largest size that fits; None if none does.

    Args:
        sizes: sizes, ascending, each twice the one before.
        need: tries a size, and returns the bytes that it needed, or None if memory was exhausted.
        free: number of bytes that are free; a size that would need more, at twice the bytes of the size
            before, is not tried.
    """
    start = next((number for number, size in enumerate(sizes) if size >= _FEW), len(sizes) - 1)
    for number in range(start, len(sizes)):
        needed = need(sizes[number])
        if needed is None:
            if number > start:
                return sizes[number - 1]
            return next((size for size in reversed(sizes[:start]) if need(size) is not None), None)
        if 2 * needed > free:
            return sizes[number]
    return sizes[-1]


def with_fitting_batch(recipe: Recipe, reporter: Reporter, resume: bool = False) -> Recipe:
    """Return a recipe with the largest batch size, of those tried, whose update fits into memory.

    Each size is tried on parts of its own with two updates, of which the first makes the optimizer's state,
    so that the run starts as if none had been tried. A GPU reports exhausted memory; on a CPU, where the
    system would end the process, the memory that updates need is measured.

    Raises:
        RunError: memory cannot be measured here, no batch fits, the model learns by itself, there are several
            processes, or the run is resumed.
    """
    if resume:
        raise RunError("a resumed run keeps its batch size: leave out --fit-batch")
    if recipe.train.micro_batch is not None:
        raise RunError(
            "--fit-batch has no effect with train.micro_batch, with which any batch fits: choose one"
        )
    known = Training(recipe, Path())
    if known.processes.world > 1:
        raise RunError("--fit-batch runs in one process: find the size there, then set train.batch_size")
    if isinstance(known.parts.model, SelfTrained):
        raise RunError("--fit-batch has no effect: the model learns by itself, from all samples at once")
    cpu = known.processes.device.type == "cpu"
    if cpu and not _peak_is_known():
        raise RunError("--fit-batch cannot measure memory on this CPU: set train.batch_size instead")
    sizes = batch_sizes(recipe.train.batch_size, known.data.size)
    del known

    def need(rows: int) -> float | None:
        before = process_memory("VmRSS", reset=True) if cpu else 0.0
        if not _fits(_with_rows(recipe, rows)):
            return None
        return process_memory("VmHWM") - before if cpu else 0.0

    best = largest_fitting(sizes, need, free_memory() * _SHARE)
    if best is None:
        raise RunError(f"not even a batch of {sizes[0]} samples fits into memory: take a smaller model")
    why = "is more than the training split has" if best == sizes[-1] else "would not fit into memory"
    reporter.warn(f"train.batch_size = {best}: {2 * best} {why}; optimizer.lr stays as it is")
    return _with_rows(recipe, best)


def _with_rows(recipe: Recipe, rows: int) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=rows))


def _fits(recipe: Recipe) -> bool:
    """Try two updates; return whether memory sufficed."""
    try:
        training = Training(recipe, Path())
        loop = training._session().loop
        for _ in range(2):
            batch = training.data.first()
            loop.epoch(0, 0, [batch], len(batch), training.data.size, lambda _: None, lambda: "")
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        training = loop = batch = None  # type: ignore[assignment]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True


def _peak_is_known() -> bool:
    try:
        return process_memory("VmHWM", reset=True) > 0
    except OSError:
        return False


def process_memory(name: str, reset: bool = False) -> float:
    """Return the memory of this process in bytes, VmRSS, or its highest since a reset, VmHWM; 0 off Linux.

    Raises:
        OSError: Linux does not let this process reset its highest value.
    """
    if not _STATUS.is_file():
        return 0.0
    if reset:
        _RESET.write_text("5")
    lines = _STATUS.read_text().splitlines()
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
