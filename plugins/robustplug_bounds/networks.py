"""The networks that are trained for bounds: what they must be, and their graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustplug.api import Refused, Task, evaluating

from .graph import Graph, folded
from .measurement import checked_graph
from .reading import read_graph


def check_network(model: nn.Module, task: Task) -> int:
    """Check that bounds can be about a model, and return its number of classes.

    Raises:
        Refused: it is no classifier of inputs of one shape, a layer is not supported, or it is not the
            function that its graph is.
    """
    shape, classes = task.info.shape, task.info.classes
    if shape is None or classes is None:
        raise Refused("interval bounds are for classifiers of inputs of one shape")
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()))
    with torch.no_grad(), evaluating(model):
        checked_graph(model, x, model(x))
    return classes


class Graphs:
    """Read the graph of a model once, and again for another model or device."""

    def __init__(self) -> None:
        self._known: tuple[nn.Module, torch.device, Graph] | None = None

    def of(self, model: nn.Module, x: Tensor) -> Graph:
        """Return the graph of a model, which follows its weights.

        Args:
            model: the model.
            x: some inputs, (N, …).
        """
        known = self._known
        if known is None or known[0] is not model or known[1] != x.device:
            graph = folded(read_graph(model, torch.cat([x[:1], x[:1]]), fixed=False))
            known = self._known = (model, x.device, graph)
        return known[2]
