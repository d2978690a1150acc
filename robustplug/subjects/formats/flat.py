"""Shared functions of models for tabular data: images become rows of numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...errors import RunError
from .trial import Shape


def flat(x: Tensor) -> Any:
    """Return images (N, C, H, W) as a numpy array float32 (N, C·H·W), in the order of (C, H, W)."""
    return x.detach().to("cpu", torch.float32).flatten(1).numpy()


def check_features(name: str, features: int, shape: Shape) -> None:
    """Compare the number of features of a model with the pixels of an image.

    Raises:
        RunError: they differ.
    """
    pixels = math.prod(shape.image)
    if features != pixels:
        raise RunError(
            f"{name} takes {features} features, but images of shape {shape.image} have {pixels}: choose the "
            "task that it was trained on, or wrap it in a function that computes its features from the images"
        )


def check_classes(name: str, classes: int, shape: Shape) -> None:
    """Compare the number of classes of a model with that of the task.

    Raises:
        RunError: they differ.
    """
    if classes != shape.classes:
        raise RunError(
            f"{name} has {classes} classes, but the task has {shape.classes}: choose the task that it was "
            "trained on"
        )
