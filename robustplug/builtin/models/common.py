"""Shared by the image models: a check of the task, the convolution and the classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import nn

from ...api import TaskInfo, normalized
from . import ImageModel


class ImageTask(NamedTuple):
    """The sizes for which a model is built."""

    channels: int
    height: int
    width: int
    classes: int


def image_task(info: TaskInfo, model: str, least: int = 1) -> ImageTask:
    """Return the sizes of an image classification task.

    Args:
        info: description of the task.
        model: name of the model, for the error messages.
        least: smallest allowed height and width. Each model passes the size at which its last BatchNorm
            still receives 2x2 pixels: on a single pixel it could not train with a batch of one.

    Raises:
        ValueError: the shape is not (C, H, W), the number of outputs is unknown, or the images are
            too small.
    """
    if info.shape is None or len(info.shape) != 3:
        raise ValueError(
            f"{model} takes images of shape (C, H, W), but the task has inputs of shape {info.shape}"
        )
    if info.outputs is None:
        raise ValueError(
            f"{model} returns a row of outputs, but the task states no number of classes or outputs"
        )
    channels, height, width = info.shape
    if min(height, width) < least:
        raise ValueError(
            f"{model} needs images of at least {least}x{least} pixels, but the task has {height}x{width}"
        )
    return ImageTask(channels, height, width, info.outputs)


def in_front(network: nn.Module, info: TaskInfo, options: ImageModel) -> nn.Module:
    """Put the normalisation that the options state in front of a network, or else that of the task.

    Raises:
        ValueError: mean and std do not match the channels.
    """
    if options.mean is not None and options.std is not None:
        channels = info.shape[0] if info.shape else len(options.mean)
        if len(options.mean) != channels:
            raise ValueError(f"mean has {len(options.mean)} numbers, but the images have {channels} channels")
        info = replace(info, mean=options.mean, std=options.std)
    return normalized(network, info, options.normalize)


def conv(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution of odd size that keeps H and W at stride 1, with Kaiming normal (fan_out)."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def classifier(channels: int, classes: int) -> nn.Sequential:
    """Return global average pooling and one linear layer, from (N, C, H, W) to logits (N, classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
