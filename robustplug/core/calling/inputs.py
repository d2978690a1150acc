"""Call a model so that it cannot write into what it is given."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...errors import RunError

# For each model, by its mode and that of the gradients: whether it writes into its inputs.
_WRITES: MutableMapping[nn.Module, dict[tuple[bool, ...], bool]] = WeakKeyDictionary()


def call(model: nn.Module, x: Any) -> Any:
    """Return a model's outputs, and leave its inputs as they are.

    The first call in each mode shows whether the model writes into its inputs, for example to normalise them
    in place. Only such a model receives a copy from then on.

    Args:
        model: the model.
        x: its inputs; anything but a tensor is handed over as it is.

    Raises:
        RunError: the model wrote into its inputs for the first time after it had not.
    """
    if not isinstance(x, Tensor):
        return model(x)
    if x.is_inference() and not torch.is_inference_mode_enabled():
        x = x.clone()  # autograd refuses tensors of inference mode
    known = _WRITES.setdefault(model, {})
    mode = (model.training, torch.is_grad_enabled(), x.requires_grad)
    writes = known.get(mode)
    if writes is None:
        given = x.clone()
        before = writes_into(given)
        output = model(given)
        # A write through `.data` or NumPy changes no version, and one of equal values only that.
        known[mode] = writes_into(given) != before or not torch.equal(given.detach(), x.detach())
        return output
    if writes:
        return model(x.clone())
    before = writes_into(x)
    output = model(x)
    if writes_into(x) != before:
        known[mode] = True
        raise RunError(
            "the model writes into its inputs, though it did not in its first call: let it work on x.clone()"
        )
    return output


class Shared(NamedTuple):
    """Key of an output that several slots may share; keeps x alive so that its identity stays unique."""

    x: Tensor
    version: int
    variant: Hashable
    grad: bool
    attack: str
    module: nn.Module


def writes_into(x: Any) -> int:
    """Return the number of writes into a tensor; those of inference mode have none."""
    return x._version if isinstance(x, Tensor) and not x.is_inference() else 0
