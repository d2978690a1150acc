"""The operations of torch that bounds know."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

KNOWN = (
    "linear, convolution, BatchNorm in eval mode, ReLU, leaky ReLU, tanh, sigmoid, average and max pooling, "
    "sums, products with constants, flatten"
)
ACTIVATIONS: Mapping[Any, str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    torch.relu: "relu",
    nn.functional.relu: "relu",
    nn.functional.leaky_relu: "leaky",
    torch.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    nn.functional.tanh: "tanh",
    nn.functional.sigmoid: "sigmoid",
    "relu": "relu",
    "relu_": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    torch.relu_: "relu",
}
SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# Certificates are about a model that is computed in float32.
WIDE = (torch.float32, torch.float64)
SAME_METHODS = ("float", "double", "contiguous", "clone", "detach", "to")
RESHAPES = ("view", "reshape", "flatten", "squeeze", "unsqueeze")
AVERAGES = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.functional.avg_pool2d, nn.functional.adaptive_avg_pool2d, torch.mean, "mean"),
)
SUMS = {
    operator.add: 1,
    operator.iadd: 1,
    torch.add: 1,
    "add": 1,
    "add_": 1,
    operator.sub: -1,
    torch.sub: -1,
}
SUMS |= {"sub": -1}
PRODUCTS = {operator.mul: False, torch.mul: False, "mul": False, operator.truediv: True, torch.div: True}
PRODUCTS |= {"div": True}
