"""The network of my-part."""

from __future__ import annotations

from robustplug.api import TaskInfo, normalized
from torch import nn

from . import MyPartOptions


def network(options: MyPartOptions, *, info: TaskInfo) -> nn.Module:
    """Build two convolutions with BatchNorm and pooling, and a linear layer: images (N, C, H, W) to logits.

    Initial weights come from torch's global generator, which the caller has seeded.

    Args:
        options: see MyPartOptions.
        info: what the task says about its inputs and classes.

    Raises:
        ValueError: the task is no image classification, or its images are too small.
    """
    if info.shape is None or len(info.shape) != 3 or info.classes is None or min(info.shape[1:]) < 4:
        raise ValueError(f"my-part classifies images of at least 4x4, not inputs of shape {info.shape}")
    channels, height, width = info.shape
    layers: list[nn.Module] = []
    for outputs in (options.width, 2 * options.width):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = outputs
    layers += [nn.Flatten(), nn.Linear(channels * (height // 4) * (width // 4), info.classes)]
    return normalized(nn.Sequential(*layers), info, True)
