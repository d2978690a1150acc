"""Read a model's outputs on its first clean samples, and give attacks logits that they can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ..core.calling.inputs import call
from ..core.calling.outputs import NOTES, AsLogits, Scale, scale_of
from ..core.calling.samples import NOTE, apart, is_restless
from ..core.random import isolated
from ..core.types import Feed, Split
from ..devices.processes import in_float32

if TYPE_CHECKING:
    from ..core.task import Task

# Clean samples whose outputs are read.
_SAMPLES = 128


class Readable(NamedTuple):
    """Hold a model whose outputs are logits.

    Attributes:
        model: the model, or one that turns its probabilities into logits.
        scale: what the model's own outputs are.
        notes: what the reader must know.
    """

    model: nn.Module
    scale: Scale
    notes: list[str]


def readable(model: nn.Module, task: Task, split: Split, device: torch.device) -> Readable:
    """Return a model with the same decisions whose outputs are logits, and notes on it.

    Probabilities are recognised by their values on the first samples of a split.

    Args:
        model: a classifier; models of other tasks are returned as they are.
        task: the task.
        split: split that is evaluated.
        device: device of the model.
    """
    plain = Readable(model, "logits", [])
    if task.info.classes is None:
        return plain
    batch = next(
        iter(task.batches(split, Feed(batch_size=_SAMPLES, samples=_SAMPLES, device=str(device)))), None
    )
    if batch is None:
        return plain
    try:
        with apart(model, watch=True), in_float32(model), torch.no_grad(), isolated(0, device):
            scale = scale_of(call(model, batch.x))
    except Exception:  # the row of the clean samples says what is wrong with the model
        return plain
    notes = [NOTES[scale]] if scale in NOTES else []
    if is_restless(model):
        notes.append(NOTE)
    return Readable(model if scale == "logits" else AsLogits(model, scale), scale, notes)
