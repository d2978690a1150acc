"""Pre-activation residual networks: PreActResNet-18 and Wide ResNet for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad, relu, silu

from ...api import TaskInfo
from . import PreActResNet, WideResNet
from .common import classifier, conv, image_task, in_front
from .published import Stage, layer_names

_ACTIVATIONS = {"relu": relu, "silu": silu}


class SameConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2, padded as TensorFlow's SAME.

    That is by one pixel on the right and below; images of odd size also on the left and above.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        """Return a feature map (N, outputs, ⌈H / 2⌉, ⌈W / 2⌉)."""
        height, width = input.shape[-2:]
        return super().forward(pad(input, (width % 2, 1, height % 2, 1)))


def conv3x3(inputs: int, outputs: int, stride: int, options: PreActResNet) -> nn.Conv2d:
    """Return a 3x3 convolution, padded as the definition says."""
    if stride == 2 and options.definition == "deepmind":
        return SameConv2d(inputs, outputs)
    return conv(inputs, outputs, 3, stride)


class PreActBlock(nn.Module):
    """Compute shortcut + conv(act(bn(conv(act(bn(x)))))), arXiv:1603.05027, Fig. 4e.

    The shortcut is x itself if the shapes agree, otherwise a 1x1 convolution of the first activation
    act(bn(x)), or with `wide_shortcut` a 3x3 convolution of x.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, options: PreActResNet, wide_shortcut: bool = False
    ) -> None:
        super().__init__()
        self.act, self.wide_shortcut = _ACTIVATIONS[options.activation], wide_shortcut
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride, options)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            narrow = not wide_shortcut
            self.shortcut = (
                conv(inputs, outputs, 1, stride) if narrow else conv3x3(inputs, outputs, stride, options)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        active = self.act(self.bn1(x))
        shortcut: Tensor = x
        if self.shortcut is not None:
            shortcut = self.shortcut(x if self.wide_shortcut else active)
        residual: Tensor = self.conv2(self.act(self.bn2(self.conv1(active))))
        return shortcut + residual


class PreActNetwork(nn.Sequential):
    """Blocks of some stages between a 3x3 stem and a final BatchNorm, activation and linear layer.

    Args:
        inputs: channels of the images.
        stem: channels of the stem.
        stages: channels, number of blocks and first stride of each stage.
        classes: number of classes.
        options: activation and definition.
        name: name of the architecture, by which its layers are known elsewhere.
    """

    def __init__(
        self,
        inputs: int,
        stem: int,
        stages: Sequence[Stage],
        classes: int,
        options: PreActResNet,
        name: str,
    ) -> None:
        layers: list[nn.Module] = [conv(inputs, stem, 3)]
        wide = name == "preact-resnet18" and options.definition == "deepmind"
        channels = stem
        for width, repeats, stride in stages:
            layers.append(PreActBlock(channels, width, stride, options, wide))
            layers += [PreActBlock(width, width, 1, options) for _ in range(repeats - 1)]
            channels = width
        last: Any = nn.SiLU() if options.activation == "silu" else nn.ReLU()
        super().__init__(*layers, nn.BatchNorm2d(channels), last, classifier(channels, classes))
        self._names = layer_names(name, options.definition, stages)

    def names_elsewhere(self) -> dict[str, str]:
        """Return the name of each layer in RobustBench's definition of this architecture."""
        return self._names


def preact_resnet18(options: PreActResNet, *, info: TaskInfo) -> nn.Module:
    """Build PreActResNet-18: four stages of two blocks, then a final BatchNorm and activation.

    This is the network of fast_adversarial. The variant without the final BatchNorm and ReLU has 1,024
    fewer parameters. It is not offered: its features would reach the pooling without an activation.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 9x9.
    """
    task = image_task(info, "preact-resnet18", least=9)
    stages = ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))
    network = PreActNetwork(task.channels, 64, stages, task.classes, options, "preact-resnet18")
    return in_front(network, info, options)


def wide_resnet(options: WideResNet, *, info: TaskInfo) -> nn.Module:
    """Build WRN-depth-width without dropout, as in TRADES: three stages of (depth - 4) / 6 blocks.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 5x5.
    """
    task = image_task(info, "wide-resnet", least=5)
    repeats = (options.depth - 4) // 6
    stages = [(channels * options.width, repeats, stride) for channels, stride in ((16, 1), (32, 2), (64, 2))]
    network = PreActNetwork(task.channels, 16, stages, task.classes, options, "wide-resnet")
    return in_front(network, info, options)
