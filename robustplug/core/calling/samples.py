"""Keep the samples of a batch apart: BatchNorm left in training mode uses running statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

NOTE = (
    "its BatchNorm stays in training mode after model.eval(), so that an output depends on the other samples "
    "of the batch: running statistics are used instead"
)

Norm = nn.modules.batchnorm._BatchNorm

# Layers that a forward pass puts back in training mode.
_RESTLESS: WeakSet[nn.Module] = WeakSet()


def norms(model: nn.Module) -> list[nn.Module]:
    """Return the BatchNorm layers that have running statistics."""
    return [part for part in model.modules() if isinstance(part, Norm) and part.running_mean is not None]


def to_rest(model: nn.Module) -> bool:
    """Put a model in eval mode, and with it BatchNorm layers that its own `eval` leaves in training mode.

    Returns:
        Whether there were such layers.
    """
    model.eval()
    left = [part for part in norms(model) if part.training]
    for part in left:
        part.training = False
    return bool(left)


def is_restless(model: nn.Module) -> bool:
    """Return whether the model was seen to use the statistics of the batch in eval mode."""
    return any(part in _RESTLESS for part in model.modules())


def _settle(part: nn.Module, _: Any) -> None:
    part.training = False


@contextlib.contextmanager
def apart(model: nn.Module, watch: bool = False) -> Iterator[None]:
    """Put a model in eval mode for a block, so that no sample affects another through BatchNorm.

    Afterwards the modes of all parts are as before.

    Args:
        model: the model.
        watch: whether the block only calls the model as it is: then running statistics that change all the
            same are put back, and the layers that changed them are kept at rest from then on.

    Raises:
        AttributeError, NotImplementedError: a part of the model has no modes.
    """
    flags = [(part, part.training) for part in model.modules()]
    layers = norms(model)
    kept = [(part, value, value.clone()) for part in layers for value in part.buffers(False)] if watch else []
    handles = [part.register_forward_pre_hook(_settle) for part in layers if part in _RESTLESS]
    try:
        if to_rest(model):
            _RESTLESS.update(layers)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part, value, copy in kept:
            if not torch.equal(value, copy):
                _RESTLESS.add(part)
                with torch.no_grad():
                    value.copy_(copy)
        for part, training in flags:
            part.training = training
