"""Networks that return a class for each pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustplug.api import TaskInfo, normalized

from .options import FcnOptions, TorchvisionSegmentationOptions
from .segmentation import SegmentationInfo


def _classes(info: TaskInfo, model: str) -> tuple[int, int]:
    """Return the channels of the images and the classes of their pixels.

    Raises:
        ValueError: the task is no segmentation of images.
    """
    if not isinstance(info, SegmentationInfo) or info.shape is None or len(info.shape) != 3:
        raise ValueError(
            f"{model} classifies pixels, and the task has none: use the task shapes or segmentation"
        )
    return info.shape[0], info.pixel_classes


class SmallFcn(nn.Module):
    """A fully convolutional network with one skip: full size, half size, and back.

    Args:
        channels: channels of the images.
        classes: classes of a pixel.
        width: channels of the first convolution.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.fine = _block(channels, width)
        self.coarse = nn.Sequential(nn.MaxPool2d(2), _block(width, 2 * width), _block(2 * width, 2 * width))
        self.head = nn.Sequential(_block(3 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W)."""
        fine = self.fine(x)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[2:], mode="nearest")
        found: Tensor = self.head(torch.cat([fine, coarse], 1))
        return found


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def small_fcn(options: FcnOptions, *, info: TaskInfo) -> nn.Module:
    """Build a small fully convolutional network.

    Raises:
        ValueError: the task is no segmentation of images of at least 4x4.
    """
    channels, classes = _classes(info, "small-fcn")
    if min((info.shape or (0,))[1:]) < 4:
        raise ValueError(f"small-fcn needs images of at least 4x4 pixels, and the task has {info.shape}")
    return normalized(SmallFcn(channels, classes, options.width), info, True)


class Dense(nn.Module):
    """Return the logits of one of torchvision's segmentation models; grey images become three equal channels.

    Args:
        network: the model.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W)."""
        found: Tensor = self.network(x.expand(-1, 3, -1, -1))["out"]
        return found


def torchvision_segmentation(options: TorchvisionSegmentationOptions, *, info: TaskInfo) -> nn.Module:
    """Build one of torchvision's segmentation models, untrained.

    Raises:
        ValueError: the task is no segmentation of images with one or three channels.
    """
    from torchvision.models import segmentation as models

    channels, classes = _classes(info, "torchvision-segmentation")
    if channels not in (1, 3):
        raise ValueError(
            f"torchvision-segmentation needs images with 1 or 3 channels, and the task has {channels}"
        )
    network = getattr(models, options.name)(weights=None, weights_backbone=None, num_classes=classes)
    return normalized(Dense(network), info, True)
