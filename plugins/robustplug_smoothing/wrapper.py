"""The smoothed model as a module, to evaluate and to attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustplug.api import TaskInfo

from . import SmoothedOptions
from .draws import draw

# Rows of noisy inputs in one call of the model.
_ROWS = 4096


class Smoothed(nn.Module):
    """Return log mean_k softmax(f(x + δ_k)), with the same draws δ_k for every input.

    With `votes`, the logarithm of the share of the draws that take each class, which has no gradient. As the
    draws are fixed when the module is built, its outputs depend on the input alone: attacks need no averages,
    and what they find are mistakes of this module.

    Args:
        options: the noise and the draws.
        model: f.
        info: the task, whose inputs must have a shape.

    Raises:
        ValueError: the inputs have no fixed shape.
    """

    def __init__(self, options: SmoothedOptions, *, model: nn.Module, info: TaskInfo) -> None:
        super().__init__()
        if info.shape is None:
            raise ValueError("the inputs have no fixed shape: only images and tables can be smoothed")
        self.model, self.votes, self.passes_per_row = model, options.votes, options.draws
        # The engine seeds the global generator where it builds a wrapper.
        rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        noise = draw((options.draws, *info.shape), options.sigma, options.noise, rng)
        self.noise = nn.Buffer(noise, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K)."""
        total: Tensor | None = None
        at_once = max(1, _ROWS // max(1, len(x)))
        for noise in torch.split(self.noise, at_once):
            moved = (x[None] + noise[:, None]).flatten(0, 1)
            outputs = self.model(moved).view(len(noise), len(x), -1)
            if self.votes:
                shares = nn.functional.one_hot(outputs.argmax(2), outputs.shape[2]).to(outputs)
            else:
                shares = outputs.softmax(2)
            total = shares.sum(0) if total is None else total + shares.sum(0)
        assert total is not None
        mean = total / len(self.noise)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
