"""A network as a graph of operations that bounds can pass: affine maps, activations, and max pooling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .affine import Affine, Back, Map, Offset, convolution, linear


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
        layer: the layer of an affine map, if it is a linear one, a convolution or a BatchNorm.
        offset: of an affine map, what it makes of zeros, in a shape that is broadcast to that of an output,
            or None for nothing; if it is not known, the map is run on zeros.
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
    layer: nn.Module | None = None
    offset: Offset | None = None
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


def constant(node: Node, shapes: Sequence[tuple[int, ...]], like: Tensor) -> Tensor | None:
    """Return what an affine map makes of zeros, in a shape that is broadcast to an output; None for zeros.

    Args:
        node: the map.
        shapes: shape of each input, for one sample.
        like: a tensor of the type and device of the inputs.
    """
    assert node.apply is not None
    if node.offset is not None:
        return node.offset()
    return node.apply(*(like.new_zeros(1, *shape) for shape in shapes))[0]


def activation(function: str, slope: float = 0.0) -> Map:
    """Return an activation by name: "relu", "leaky", "tanh" or "sigmoid"."""
    return {
        "relu": torch.relu,
        "leaky": lambda x: nn.functional.leaky_relu(x, slope),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }[function]


def folded(graph: Graph) -> Graph:
    """Return the graph with each BatchNorm as part of the layer in front of it, if nothing else reads that.

    The function is the same up to rounding, and costs what its layers cost.
    """
    readers = Counter(before for node in graph.nodes for before in node.inputs)
    nodes: list[Node] = []
    places: list[int] = []
    for at, node in enumerate(graph.nodes):
        inputs = tuple(places[before] for before in node.inputs)
        front = graph.nodes[at - 1]
        alone = node.inputs == (at - 1,) and readers[at - 1] == 1
        whole = _with_norm(front.layer, node.layer, len(front.shape)) if alone else None
        if whole is None:
            nodes.append(replace(node, inputs=inputs))
        else:
            nodes[-1] = Node(front.name, "affine", nodes[-1].inputs, whole.apply, node.shape, *whole[1:])
        places.append(len(nodes) - 1)
    return Graph(tuple(nodes))


def _with_norm(layer: nn.Module | None, norm: nn.Module | None, dimensions: int) -> Affine | None:
    """Return a layer with a BatchNorm of its channels behind it, if they are that."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return None
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return convolution(layer, norm)
    # The last dimension of a linear layer's outputs is that of the channels if there is no other.
    return linear(layer, norm) if isinstance(layer, nn.Linear) and dimensions == 1 else None
