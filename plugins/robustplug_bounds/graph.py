"""A network as a graph of operations that bounds can pass: affine maps, activations, and max pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv1d_input, conv2d_input

Map = Callable[..., Tensor]
Back = Callable[[Tensor, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Node:
    """Describe one operation.

    Attributes:
        name: name in the network, for messages.
        kind: what it is.
        inputs: positions of the nodes that it takes.
        apply: the operation, on batches; None for the input.
        shape: shape of its output for one sample.
        magnitude: of an affine map, |L| without the constant, for errors and radii; None for other kinds.
        terms: of an affine map, the most products that are summed for one value, the constant included.
        size: of an affine map, the sum of the sizes of all products, if it is more than |L| and the constant.
        function: name of an activation.
        slope: slope of a leaky ReLU below 0.
        back: of an affine map of one input, from coefficients of outputs (M, …) and the shape of an input to
            coefficients of the input; None to take the gradient.
        window: size, stride, padding and dilation of max pooling.
    """

    name: str
    kind: Literal["input", "affine", "activation", "max"]
    inputs: tuple[int, ...]
    apply: Map | None
    shape: tuple[int, ...]
    magnitude: Map | None = None
    terms: int = 1
    size: Map | None = None
    back: Back | None = None
    function: str = ""
    slope: float = 0.0
    window: tuple[Any, Any, Any, Any] = (2, 2, 0, 1)


@dataclass(frozen=True)
class Graph:
    """Hold the operations of a network in order; the first is the input and the last the output."""

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the network, from inputs (N, …) to outputs."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """Return the output of every node."""
        found: list[Tensor] = []
        for node in self.nodes:
            found.append(x if node.apply is None else node.apply(*(found[at] for at in node.inputs)))
        return found


def constant(node: Node, like: Sequence[Tensor]) -> Tensor:
    """Return what an affine map makes of zeros, (1, …).

    Args:
        node: the map.
        like: a tensor of the type and device of each input.
    """
    assert node.apply is not None
    return node.apply(*(torch.zeros_like(each[:1]) for each in like))


class Affine(NamedTuple):
    """An affine map: itself, |L|, the number of products in a sum, their sizes, L backward; see `Node`."""

    apply: Map
    magnitude: Map
    terms: int
    size: Map | None = None
    back: Back | None = None


def linear(layer: nn.Linear) -> Affine:
    """Return a linear layer."""

    def apply(x: Tensor) -> Tensor:
        return nn.functional.linear(x, layer.weight, layer.bias)

    def magnitude(x: Tensor) -> Tensor:
        return nn.functional.linear(x, layer.weight.abs())

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        return rows @ layer.weight

    return Affine(apply, magnitude, layer.in_features + 1, None, back)


def convolution(layer: nn.Conv1d | nn.Conv2d) -> Affine:
    """Return a convolution that pads with zeros."""

    def apply(x: Tensor) -> Tensor:
        result: Tensor = layer._conv_forward(x, layer.weight, layer.bias)
        return result

    def magnitude(x: Tensor) -> Tensor:
        result: Tensor = layer._conv_forward(x, layer.weight.abs(), None)
        return result

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        given: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
        inputs: Any = conv2d_input if isinstance(layer, nn.Conv2d) else conv1d_input
        result: Tensor = inputs((len(rows), *shape), layer.weight, rows, *given)
        return result

    terms = layer.weight[0].numel() + 1
    return Affine(apply, magnitude, terms, None, None if isinstance(layer.padding, str) else back)


def batchnorm(layer: Any) -> Affine:
    """Return BatchNorm in eval mode."""

    def scale(x: Tensor) -> tuple[Tensor, Tensor]:
        inverse = (layer.running_var + layer.eps).rsqrt()
        factor = inverse if layer.weight is None else inverse * layer.weight
        shift = -layer.running_mean * factor
        shift = shift if layer.bias is None else shift + layer.bias
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return factor.view(shape), shift.view(shape)

    def apply(x: Tensor) -> Tensor:
        factor, shift = scale(x)
        return x * factor + shift

    def magnitude(x: Tensor) -> Tensor:
        return x * scale(x)[0].abs()

    def size(x: Tensor) -> Tensor:
        factor, _ = scale(x)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        total: Tensor = (x + layer.running_mean.abs().view(shape)) * factor.abs()
        return total if layer.bias is None else total + layer.bias.abs().view(shape)

    def back(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        return rows * scale(rows)[0]

    # Subtraction, division by a root, product and sum.
    return Affine(apply, magnitude, 8, size, back)


def activation(function: str, slope: float = 0.0) -> Map:
    """Return an activation by name: "relu", "leaky", "tanh" or "sigmoid"."""
    return {
        "relu": torch.relu,
        "leaky": lambda x: nn.functional.leaky_relu(x, slope),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }[function]
