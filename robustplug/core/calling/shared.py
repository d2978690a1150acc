"""Outputs of a model that several slots may share."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from torch import Tensor, nn


class Shared(NamedTuple):
    """Key of an output that several slots may share; keeps x alive so that its identity stays unique."""

    x: Tensor
    version: int
    variant: Hashable
    grad: bool
    attack: str
    module: nn.Module


def writes_into(output: Any) -> int:
    """Return the number of writes into an output; those of inference mode have none."""
    return output._version if isinstance(output, Tensor) and not output.is_inference() else 0
