"""VGG-16 for small images."""

from __future__ import annotations

from torch import nn

from ...api import TaskInfo
from . import ImageModel
from .common import classifier, conv, image_task, in_front

_STACKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16(options: ImageModel, *, info: TaskInfo) -> nn.Module:
    """Build VGG-16 with BatchNorm: 13 convolutions in five pooled stacks, one linear layer.

    This is the network of SPROUT and CAT for CIFAR-10, without the convolutions' biases, which
    BatchNorm cancels.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 32x32.
    """
    task = image_task(info, "vgg16", least=32)
    layers: list[nn.Module] = []
    channels = task.channels
    for width, repeats in _STACKS:
        for _ in range(repeats):
            layers += [conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers, classifier(channels, task.classes))
    return in_front(network, info, options)
