"""Wrappers around the model under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..api import Refused, open_model

if TYPE_CHECKING:
    from ..api import TaskInfo
    from . import BitDepthOptions, EnsembleOptions


class Averaged(nn.Module):
    """Average the probabilities of several models, and return their logarithm as logits.

    Args:
        models: modules from inputs to logits (N, K).
    """

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models, self.passes_per_row = nn.ModuleList(models), len(models)

    def forward(self, x: Tensor) -> Tensor:
        """Return log mean_m softmax(f_m(x)), (N, K)."""
        logs = torch.stack([model(x).log_softmax(1) for model in self.models])
        return torch.logsumexp(logs, 0) - torch.tensor(float(len(self.models))).log()


def ensemble(options: EnsembleOptions, *, model: nn.Module, info: TaskInfo) -> nn.Module:
    """Return the model together with those of other runs.

    Raises:
        ValueError: there is no other run, or one holds no model for this task.
    """
    try:
        others = [open_model(folder, info) for folder in options.runs]
    except Refused as why:
        raise ValueError(f"runs: {why}") from why
    return Averaged(model, *others)


class Rounding(nn.Module):
    """Round values between 0 and 1 to multiples of a fraction; the gradient is 0.

    Args:
        steps: number of these fractions from 0 to 1.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded values."""
        return (x * self.steps).round() / self.steps


class BitDepth(nn.Module):
    """Round inputs to few bits before the model sees them; the gradient of the rounding is 0.

    Xu et al. 2018, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks,
    arXiv:1704.01155. Attacks see a masked gradient; an audit, a suite with `adaptive`, or `bpda` around an
    attack, with part = "rounding", goes around it.

    Args:
        options: the number of bits.
        model: the model.
        info: the task, whose bounds are the ends of the scale.
    """

    def __init__(self, options: BitDepthOptions, *, model: nn.Module, info: TaskInfo) -> None:
        super().__init__()
        self.model, self.rounding = model, Rounding(2**options.bits - 1)
        low, high = (torch.as_tensor(side, dtype=torch.float32) for side in info.bounds)
        self.low, self.width = nn.Buffer(low, persistent=False), nn.Buffer(high - low, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the model for rounded inputs."""
        low, width = (
            side.view(1, -1, *(1,) * (x.dim() - 2)) if side.dim() else side for side in (self.low, self.width)
        )
        outputs: Tensor = self.model(self.rounding((x - low) / width) * width + low)
        return outputs
