"""Input normalisation inside the model, so that attacks see inputs in [0, 1], and a temporary eval mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .types import TaskInfo


class Normalized(nn.Module):
    """Apply a network to (x - mean) / std, for images x (N, C, H, W) in [0, 1].

    Raises:
        ValueError: mean and std differ in length, or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"normalisation needs a positive std for each mean, not mean {mean} and std {std}"
            )
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits (N, K)."""
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def normalized(network: nn.Module, info: TaskInfo, enabled: bool) -> nn.Module:
    """Put the task's normalisation in front of a network, if enabled and if the task states one.

    Raises:
        ValueError: the task's mean and std do not match each other or its channels.
    """
    if not enabled or not info.mean:
        return network
    if info.shape is not None and len(info.mean) != info.shape[0]:
        raise ValueError(f"the task states {len(info.mean)} means for {info.shape[0]} channels")
    return Normalized(network, info.mean, info.std)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a block, and restore the mode of each part afterwards.

    Raises:
        AttributeError, NotImplementedError: a part of the module has no modes.
    """
    flags = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in flags:
            part.training = training
