"""Change a model for a block, and restore it afterwards, even after an exception."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from .samples import to_rest

BatchNormMode = Literal["eval", "train"]


@contextlib.contextmanager
def values_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put the same bits back into tensors after a block."""
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)


@contextlib.contextmanager
def frozen(
    model: nn.Module, parameters: Iterable[nn.Parameter], batchnorm: BatchNormMode = "eval"
) -> Iterator[None]:
    """Freeze parameters, and set the mode of a model.

    Args:
        model: the model.
        parameters: parameters to freeze.
        batchnorm: "eval" uses running statistics; "train" uses those of the batch.
    """
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    flags = [(module, module.training) for module in model.modules()]
    try:
        with values_kept(model.buffers() if batchnorm == "train" else ()):
            for parameter in moving:
                parameter.requires_grad_(False)
            if batchnorm == "train":
                model.train()
            else:
                to_rest(model)
            yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
        for module, training in flags:
            module.training = training
