"""Pre-activation residual networks: PreActResNet-18 and Wide ResNet for small images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.functional import relu

from ...api import TaskInfo
from . import ImageModel, WideResNet
from .common import classifier, conv, image_task, in_front


class PreActBlock(nn.Module):
    """Compute shortcut + conv(relu(bn(conv(relu(bn(x)))))), arXiv:1603.05027, Fig. 4e.

    The shortcut is x itself if the shapes agree, otherwise a 1x1 convolution of the first activation
    relu(bn(x)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        active = relu(self.bn1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.conv2(relu(self.bn2(self.conv1(active))))
        return shortcut + residual


def preact_resnet18(options: ImageModel, *, info: TaskInfo) -> nn.Module:
    """Build PreActResNet-18: four stages of two blocks, then a final BatchNorm and ReLU.

    This is the network of fast_adversarial. The variant without the final BatchNorm and ReLU has 1,024
    fewer parameters. It is not offered: its features would reach the pooling without an activation.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 9x9.
    """
    task = image_task(info, "preact-resnet18", least=9)
    stages = ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))
    return in_front(_network(task.channels, 64, stages, task.classes), info, options)


def wide_resnet(options: WideResNet, *, info: TaskInfo) -> nn.Module:
    """Build WRN-depth-width without dropout, as in TRADES: three stages of (depth - 4) / 6 blocks.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 5x5.
    """
    task = image_task(info, "wide-resnet", least=5)
    repeats = (options.depth - 4) // 6
    stages = [(channels * options.width, repeats, stride) for channels, stride in ((16, 1), (32, 2), (64, 2))]
    return in_front(_network(task.channels, 16, stages, task.classes), info, options)


def _network(inputs: int, stem: int, stages: Iterable[tuple[int, int, int]], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [conv(inputs, stem, 3)]
    channels = stem
    for width, repeats, stride in stages:
        layers.append(PreActBlock(channels, width, stride))
        layers += [PreActBlock(width, width, 1) for _ in range(repeats - 1)]
        channels = width
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels, classes))
