"""Outputs that are probabilities: attacks need their logarithms, whose gradients do not vanish."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Scale = Literal["logits", "probabilities", "sigmoids"]

NOTES: dict[Scale, str] = {
    "probabilities": "its outputs are probabilities: attacks and losses use their logarithms, as of logits",
    "sigmoids": (
        "its outputs lie in [0, 1] and are taken as sigmoids: attacks and losses use their logits, "
        "log p/(1 − p)"
    ),
}


def scale_of(outputs: Any) -> Scale:
    """Tell logits from probabilities (N, K) that sum to 1, and from independent ones.

    Decisions, which are 0 and 1, and whatever is no tensor (N, K) count as logits.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or not outputs.numel():
        return "logits"
    if not outputs.is_floating_point() or outputs.shape[1] < 2:
        return "logits"
    values = outputs.detach().double()
    inside = bool(((values >= 0) & (values <= 1 + 1e-5)).all())
    if not inside or bool(((values == 0) | (values == 1)).all()):
        return "logits"
    rounding = max(1e-3, 4 * torch.finfo(outputs.dtype).eps)
    if bool(((values.sum(1) - 1).abs() < rounding).all()):
        return "probabilities"
    # Scores that are cut off at 0 are no sigmoids, which only half precision rounds to 0.
    single = torch.finfo(outputs.dtype).bits >= 32
    return "logits" if single and bool((values == 0).any()) else "sigmoids"


class AsLogits(nn.Module):
    """A model whose probabilities are turned into logits: the same decisions, with usable gradients.

    Args:
        model: a model with outputs (N, K) in [0, 1].
        scale: "probabilities" for log p, "sigmoids" for log p/(1 − p).
    """

    def __init__(self, model: nn.Module, scale: Scale) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K), of which those of probability 0 are finite."""
        p: Tensor = self.model(x)
        p = p if p.dtype == torch.float64 else p.float()
        tiny = torch.finfo(p.dtype).tiny
        logs = p.clamp_min(tiny).log()
        return logs if self.scale == "probabilities" else logs - (1 - p).clamp_min(tiny).log()
