"""Count what a call of a model computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .samples import apart


def forward_operations(model: nn.Module, x: Tensor) -> float:
    """Return the floating-point operations of a forward pass on a batch, counted on its first sample.

    Args:
        model: model on its device; neither its modes nor its running statistics change.
        x: a batch (N, …).
    """
    with apart(model, watch=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1].clone())
    return float(counter.get_total_flops()) * len(x)
