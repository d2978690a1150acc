"""A module that runs a model of any format, in batches of the sizes that it accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.modules import evaluating
from ..target import TargetKind

Key = str | int | None


@dataclass(frozen=True)
class Sizes:
    """Hold the batch sizes that a model accepts.

    Attributes:
        least: smallest batch; smaller ones are padded.
        most: largest batch; larger ones are split. None for no limit.
    """

    least: int = 1
    most: int | None = None


@dataclass
class Opened:
    """Hold a model between reading and trial.

    Attributes:
        function: maps images to outputs; a module if torch may switch its mode and freeze it.
        kind: the kind of its source.
        name: name for messages.
        facts: entries of the description.
        sizes: batch sizes that it accepts.
        mean, std: normalisation that its weights require; empty if none is known.
        notes: notes of the description.
    """

    function: Callable[[Tensor], Any]
    kind: TargetKind
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes = Sizes()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: list[str] = field(default_factory=list)


def select(output: Any, key: Key) -> Any:
    """Return one of a model's outputs, an item or an attribute; for key None, return all of them."""
    if key is None:
        return output
    return getattr(output, key) if isinstance(key, str) and not isinstance(output, Mapping) else output[key]


def as_tensor(output: Any, device: torch.device) -> Any:
    """Turn a numpy array into a tensor on the device, float32 for floating-point numbers."""
    if not isinstance(output, np.ndarray):
        return output
    tensor = torch.from_numpy(np.ascontiguousarray(output)).to(device)
    return tensor.float() if tensor.is_floating_point() else tensor


def as_logits(numbers: Tensor, classes: int) -> Tensor:
    """Turn class indices (N,) into logits (N, classes): 1 at the class, 0 at the others.

    Raises:
        ValueError: an index is out of range.
    """
    numbers = numbers.long()
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if len(wrong):
        raise ValueError(f"class indices must be 0 to {classes - 1}, not {int(wrong[0])}")
    return nn.functional.one_hot(numbers, classes).float()


class Adapter(nn.Module):
    """Give a function or module the interface that attacks need: from images (N, C, H, W) to one tensor.

    A function that is not a module is not registered with torch: train(), eval() and freezing its parameters
    do not affect it.

    Args:
        function: maps images to outputs, tensors or numpy arrays.
        sizes: batch sizes that it accepts.
        key: key of the output to use; None for the only one.
        decisions: number of classes, if the output is a class index for each row; it becomes 1 at that class
            and 0 at the others. None for logits.
        gradients: False runs the function without a graph.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        sizes: Sizes = Sizes(),
        key: Key = None,
        decisions: int | None = None,
        gradients: bool = True,
    ) -> None:
        super().__init__()
        self.function, self.sizes, self.key = function, sizes, key
        self.decisions, self.gradients = decisions, gradients
        self.training = isinstance(function, nn.Module) and function.training

    @property
    def plain(self) -> bool:
        """Return whether the function needs no adapter if it is a module."""
        return self.sizes == Sizes() and self.key is None and self.decisions is None and self.gradients

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all rows of x."""
        if not self.gradients:
            with torch.no_grad():
                return self._run(x.detach())
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        parts = [x] if self.sizes.most is None else torch.split(x, self.sizes.most)
        outputs = [self._part(part) for part in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _part(self, x: Tensor) -> Tensor:
        output: Tensor = as_tensor(select(self.function(self.padded(x)), self.key), x.device)
        if self.decisions is not None:
            output = as_logits(output, self.decisions)
        # Without padding the output is not cut: a wrong number of rows must remain visible.
        return output[: len(x)] if len(x) < self.sizes.least else output

    def padded(self, x: Tensor) -> Tensor:
        """Return x, padded with rows of zeros to the smallest batch."""
        missing = self.sizes.least - len(x)
        return x if missing <= 0 else torch.cat([x, x.new_zeros(missing, *x.shape[1:])])


def manageable(module: nn.Module) -> Callable[[Tensor], Any]:
    """Return the module, or only its call if its mode cannot be switched.

    Frozen TorchScript modules and the modules of exported programs have no modes.
    """
    try:
        with evaluating(module):
            return module
    except (AttributeError, NotImplementedError):
        call: Callable[[Tensor], Any] = module.__call__
        return call
