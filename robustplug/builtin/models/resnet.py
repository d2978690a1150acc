"""Residual networks with the activation after the sum: ResNet-18 and ResNeXt-29 for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from ...api import TaskInfo
from . import ImageModel, ResNeXt
from .common import classifier, conv, image_task, in_front


class Residual(nn.Module):
    """Compute relu(body(x) + shortcut(x)).

    The shortcut is the identity if the shapes agree, otherwise a 1x1 convolution and BatchNorm
    (option B of arXiv:1512.03385).
    """

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return relu(self.body(x) + self.shortcut(x))


def basic_block(inputs: int, outputs: int, stride: int) -> Residual:
    """Return the block of two 3x3 convolutions."""
    body = nn.Sequential(
        conv(inputs, outputs, 3, stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        conv(outputs, outputs, 3),
        nn.BatchNorm2d(outputs),
    )
    return Residual(body, inputs, outputs, stride)


def grouped_bottleneck(inputs: int, width: int, outputs: int, stride: int, groups: int) -> Residual:
    """Return the block of ResNeXt (arXiv:1611.05431, Fig. 3c): 1x1, grouped 3x3, 1x1."""
    body = nn.Sequential(
        conv(inputs, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv(width, width, 3, stride, groups),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv(width, outputs, 1),
        nn.BatchNorm2d(outputs),
    )
    return Residual(body, inputs, outputs, stride)


def resnet18(options: ImageModel, *, info: TaskInfo) -> nn.Module:
    """Build ResNet-18 for small images: a 3x3 stem without pooling, as in TRADES.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 9x9.
    """
    task = image_task(info, "resnet18", least=9)
    blocks: list[nn.Module] = []
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [basic_block(channels, width, stride), basic_block(width, width, 1)]
        channels = width
    network = nn.Sequential(*_stem(task.channels), *blocks, classifier(channels, task.classes))
    return in_front(network, info, options)


def resnext29(options: ResNeXt, *, info: TaskInfo) -> nn.Module:
    """Build ResNeXt-29 for small images: three stages of three bottlenecks (§5.3 of the paper).

    As in the paper, the stages output 256, 512 and 1024 channels for any cardinality, and the stem is
    3x3. A well-known reimplementation has a 1x1 stem and ties these channels to the cardinality; its
    stages are the same at 2x64d only.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 5x5.
    """
    task = image_task(info, "resnext29", least=5)
    groups = options.cardinality
    blocks: list[nn.Module] = []
    channels = 64
    for factor, stride in ((1, 1), (2, 2), (4, 2)):
        width, outputs = factor * groups * options.base_width, factor * 256
        blocks.append(grouped_bottleneck(channels, width, outputs, stride, groups))
        blocks += [grouped_bottleneck(outputs, width, outputs, 1, groups) for _ in range(2)]
        channels = outputs
    network = nn.Sequential(*_stem(task.channels), *blocks, classifier(channels, task.classes))
    return in_front(network, info, options)


def _stem(channels: int) -> tuple[nn.Module, ...]:
    return conv(channels, 64, 3), nn.BatchNorm2d(64), nn.ReLU()
