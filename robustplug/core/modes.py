"""The mode of a module, kept as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for a block, and each of its parts back afterwards.

    Raises:
        AttributeError, NotImplementedError: some part of it has no modes.
    """
    flags = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in flags:
            part.training = training
