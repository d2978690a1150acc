"""The computation of my-part."""

from __future__ import annotations

from robustplug.api import Step, View, as_rows
from torch import Tensor

from . import MyPartOptions


def focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return −Σ_k t_k (1 − p_k)^γ log p_k of each sample, (N,).

    Args:
        logits: (N, K).
        target: classes int64 (N,), or rows (N, K) that sum to 1.
        gamma: γ, at least 0.
    """
    logs = logits.float().log_softmax(1)
    # A power below 1 has no finite gradient at 0.
    doubt = (1 - logs.exp()).clamp_min(1e-6)
    return -(as_rows(target, logits.shape[1]) * doubt.pow(gamma) * logs).sum(1)


class MyPart:
    """Weight the cross entropy of each class by (1 − p)^γ.

    Args:
        options: see MyPartOptions.
    """

    def __init__(self, options: MyPartOptions) -> None:
        self.gamma = options.gamma

    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, (N,)."""
        return focal(output, target, self.gamma)
