"""A multilayer perceptron for tables, and for images as rows of pixels."""

from __future__ import annotations

import math

from torch import nn

from ...api import TaskInfo, mlp
from . import Mlp
from .common import in_front


def multilayer_perceptron(options: Mlp, *, info: TaskInfo) -> nn.Module:
    """Build hidden layers with an activation, and a linear layer on top.

    Raises:
        ValueError: the task is not a classification of inputs of one shape.
    """
    if info.shape is None or info.classes is None:
        raise ValueError(
            f"mlp classifies inputs of one shape, but the task has inputs of shape {info.shape} and "
            f"{info.classes} classes"
        )
    network = mlp(math.prod(info.shape), info.classes, options.hidden, options.activation, options.dropout)
    return in_front(network, info, options)
