"""Choose the number of rows of a batch: on a GPU, what its memory takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.calling.inputs import call
from ..core.random import derive, isolated
from ..core.types import Feed
from ..errors import ends_program
from ..recipe.options import EvaluateOptions

if TYPE_CHECKING:
    from ..core.types import Batch, Split
    from .setting import Setting

# Rows of a batch where none are stated, and at most.
DEFAULT, MOST = EvaluateOptions().batch_size, 4096
# Part of a device's memory for a forward and a backward pass of a batch: an attack keeps about as much again,
# and its graphs as much as both; the rest is for others.
SHARE = 1 / 8


def rows_of_batch(setting: Setting, split: Split, rows: int, samples: int | None) -> int:
    """Return the rows of a batch: as stated, but on a GPU more if that is the default.

    They follow from the model and from the size of the device's memory, so that every start chooses the same.

    Args:
        setting: the evaluation.
        split: the split of the samples.
        rows: rows of a batch as stated.
        samples: number of samples, taken from the start of the split; None for all.
    """
    device, size = setting.processes.device, setting.task.info.sizes[split]
    alone = setting.processes.world == 1 and setting.share is None
    if device.type != "cuda" or not alone or rows != DEFAULT:
        return rows
    batch = next(
        iter(setting.task.batches(split, Feed(batch_size=rows, samples=samples, device=str(device))))
    )
    if not isinstance(batch.x, Tensor) or not batch.x.is_floating_point() or len(batch) < rows:
        return rows
    try:
        with setting.prepared(), setting.guarding(setting.model, batch):
            need = peak_memory(setting, batch)
    except Exception as error:  # the evaluation says what is wrong
        if ends_program(error):
            raise
        return rows
    memory = torch.cuda.get_device_properties(device).total_memory
    return grown(rows, need, memory, min(size, samples or size))


def grown(rows: int, need: int, memory: int, samples: int) -> int:
    """Return a number of rows, doubled as often as the memory takes it and the samples fill it.

    Args:
        rows: number of rows.
        need: bytes that a forward and a backward pass of so many rows needs.
        memory: bytes of the whole device, however much is free.
        samples: number of samples.
    """
    size = rows
    while size < min(samples, MOST) and 2 * size * need <= SHARE * memory * rows:
        size *= 2
    return size


def peak_memory(setting: Setting, batch: Batch) -> int:
    """Return the bytes that the outputs of a batch and the gradient of its inputs need on a GPU."""
    device = batch.x.device
    with isolated(derive(setting.seed, "memory"), device), torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        output = call(setting.model, x)
        if isinstance(output, Tensor) and output.requires_grad:
            torch.autograd.grad(output.float().sum(), x, allow_unused=True)
        return torch.cuda.max_memory_allocated(device) - before
