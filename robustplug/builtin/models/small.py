"""Small networks: CNNs for digits and MNIST, those that people certify, and a perceptron for tables, too."""

from __future__ import annotations

import math

from torch import nn

from ...api import TaskInfo, mlp
from . import Cnn7, ConvSmall, Mlp, SmallCnn
from .common import conv, image_task, in_front


def small_cnn(options: SmallCnn, *, info: TaskInfo) -> nn.Module:
    """Build a CNN of four 3x3 convolutions, two max poolings and two hidden layers.

    With `batchnorm=False`, this is the MNIST network that Carlini & Wagner attack (32-32-64-64, 200-200),
    except that its convolutions are padded and it has no dropout.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 4x4.
    """
    task = image_task(info, "small-cnn", least=4)
    layers: list[nn.Module] = []
    channels = task.channels
    for width in (options.width, 2 * options.width):
        for _ in range(2):
            layers.append(conv(channels, width, 3, bias=not options.batchnorm))
            if options.batchnorm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [
        nn.Flatten(),
        nn.Linear(channels * (task.height // 4) * (task.width // 4), options.hidden),
        nn.ReLU(),
        nn.Linear(options.hidden, options.hidden),
        nn.ReLU(),
        nn.Linear(options.hidden, task.classes),
    ]
    return in_front(nn.Sequential(*layers), info, options)


def conv_small(options: ConvSmall, *, info: TaskInfo) -> nn.Module:
    """Build a CNN of two strided 4x4 convolutions and a hidden layer, with ReLU.

    The network of Wong & Kolter 2018 (arXiv:1711.00851) for MNIST (16-32, 100), "ConvSmall" of verifiers.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 4x4.
    """
    task = image_task(info, "conv-small", least=4)
    layers: list[nn.Module] = []
    channels = task.channels
    for width in (options.width, 2 * options.width):
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        channels = width
    pixels = (task.height // 4) * (task.width // 4)
    layers += _head(channels * pixels, options.hidden, task.classes)
    return in_front(nn.Sequential(*layers), info, options)


def cnn7(options: Cnn7, *, info: TaskInfo) -> nn.Module:
    """Build the CNN of five 3x3 convolutions, the third strided, and a hidden layer, with ReLU.

    `cnn_7layer_bn` of Shi et al. 2021 (arXiv:2103.17268), on which methods that train for bounds compare.

    Raises:
        ValueError: the task is not image classification, or its images are smaller than 4x4.
    """
    task = image_task(info, "cnn7", least=4)
    layers: list[nn.Module] = []
    channels = task.channels
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (2, 1)):
        width = factor * options.width
        # The code has biases in front of BatchNorm, too, where they do nothing.
        layers.append(nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=not options.batchnorm))
        layers += [nn.BatchNorm2d(width)] * options.batchnorm
        layers.append(nn.ReLU())
        channels = width
    pixels = ((task.height + 1) // 2) * ((task.width + 1) // 2)
    layers += _head(channels * pixels, options.hidden, task.classes)
    return in_front(nn.Sequential(*layers), info, options)


def _head(values: int, hidden: int, classes: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(values, hidden), nn.ReLU(), nn.Linear(hidden, classes)]


def multilayer_perceptron(options: Mlp, *, info: TaskInfo) -> nn.Module:
    """Build hidden layers with an activation, and a linear layer on top.

    Raises:
        ValueError: inputs have no fixed shape, or the number of outputs is unknown.
    """
    if info.shape is None or info.outputs is None:
        raise ValueError(
            f"mlp takes inputs of one shape, but the task has inputs of shape {info.shape} and "
            f"{info.outputs} classes or outputs"
        )
    network = mlp(math.prod(info.shape), info.outputs, options.hidden, options.activation, options.dropout)
    return in_front(network, info, options)
