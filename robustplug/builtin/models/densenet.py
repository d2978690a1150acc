"""DenseNet-121 for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...api import TaskInfo
from . import ImageModel
from .common import classifier, conv, image_task, in_front

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """Append `growth` channels to the feature map: BN-ReLU-1x1 (4 growth channels), BN-ReLU-3x3."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv(inputs, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            conv(4 * growth, growth, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, inputs + growth, H, W)."""
        return torch.cat([x, self.body(x)], 1)


def densenet121(options: ImageModel, *, info: TaskInfo) -> nn.Module:
    """Build DenseNet-121 (bottlenecks, growth 32, compression 1/2) with a 3x3 stem and no pooling in it.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 16x16.
    """
    task = image_task(info, "densenet121", least=16)
    channels = 2 * _GROWTH
    layers: list[nn.Module] = [conv(task.channels, channels, 3)]
    for number, repeats in enumerate(_BLOCKS):
        if number:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(repeats):
            layers.append(DenseLayer(channels, _GROWTH))
            channels += _GROWTH
    network = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels, task.classes))
    return in_front(network, info, options)
