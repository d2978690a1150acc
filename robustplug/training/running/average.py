"""The average of the weights over the updates."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel


def average(averaged: AveragedModel, model: nn.Module, first: bool) -> None:
    """Update averaged weights and buffers as torch does, but without asking the device.

    `AveragedModel.update_parameters` asks it each time whether it is the first, and waits for the answer.

    Args:
        averaged: the average, with a function of several tensors.
        model: the model that is trained.
        first: whether it is the first update, which is copied.
    """
    own, new = (
        [value.detach() for value in itertools.chain(part.parameters(), part.buffers())]
        for part in (averaged.module, model)
    )
    with torch.no_grad():
        if first:
            for value, other in zip(own, new, strict=True):
                value.copy_(other)
        else:
            merge: Any = averaged.multi_avg_fn
            kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
            for number, value in enumerate(own):
                kinds.setdefault((value.device, value.dtype), []).append(number)
            for chosen in kinds.values():
                merge([own[n] for n in chosen], [new[n] for n in chosen], averaged.n_averaged)
        averaged.n_averaged += 1
