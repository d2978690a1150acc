"""Normalisation inside the model, so that attacks see the task's own inputs; a plain network; eval mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .calling.samples import apart
from .types import TaskInfo


@dataclass(frozen=True)
class Weights:
    """Hold trained weights that a model's library offers.

    Attributes:
        state: tensors by name, as in the state dict of the network.
        source: what they are, for the reader.
        mean, std: normalisation that they need, for inputs in [0, 1]; empty if none, or if it is in there.
    """

    state: Mapping[str, Tensor]
    source: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Normalized(nn.Module):
    """Apply a network to (x - mean) / std, for images x (N, C, H, W) or rows of features x (N, F).

    Args:
        network: the network.
        mean, std: a number for each channel or feature.

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
        shape = (1, -1, *(1,) * (x.dim() - 2))
        logits: Tensor = self.network((x - self.mean.view(shape)) / self.std.view(shape))
        return logits


def normalized(network: nn.Module, info: TaskInfo, enabled: bool) -> nn.Module:
    """Put the task's normalisation in front of a network, if enabled and if the task states one.

    Raises:
        ValueError: the task's mean and std do not match each other or its channels.
    """
    if not enabled or not info.mean:
        return network
    if info.shape is not None and len(info.mean) != info.shape[0]:
        raise ValueError(f"the task states {len(info.mean)} means for {info.shape[0]} channels or features")
    return Normalized(network, info.mean, info.std)


ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Build a multilayer perceptron, from inputs (N, …) of which each has `inputs` numbers to (N, outputs).

    Args:
        inputs: numbers of one input, which is flattened.
        outputs: number of outputs.
        hidden: units of each hidden layer; empty for a linear model.
        activation: "relu", "gelu", "tanh" or "silu", after each hidden layer.
        dropout: probability of dropping a unit after each hidden layer, in [0, 1).

    Raises:
        ValueError: there is no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f'activation "{activation}" is none of {", ".join(ACTIVATIONS)}')
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(inputs, units), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a block, and restore the mode of each part afterwards.

    BatchNorm that the module's own `eval` leaves in training mode uses its running statistics, too.

    Raises:
        AttributeError, NotImplementedError: a part of the module has no modes.
    """
    with apart(module):
        yield
