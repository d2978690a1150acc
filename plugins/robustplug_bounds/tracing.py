"""The operations of a module's forward, in order, by torch.fx."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from robustplug.api import Normalized, Refused


class _Tracer(fx.Tracer):
    """A tracer that knows how `Normalized` broadcasts, which looks at the dimensions of its inputs."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Write a normalisation as a difference and a quotient, and trace the network behind it."""
        if isinstance(m, Normalized):
            shape = (1, -1, *(1,) * (self.dimensions - 2))
            return m.network((args[0] - m.mean.view(shape)) / m.std.view(shape))
        # Accelerate puts a forward with autocast on the module that it prepares, which cannot be traced.
        if "_original_forward" in vars(m) and not self.is_leaf_module(m, self.path_of_module(m)):
            return vars(m)["_original_forward"](*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def trace(model: nn.Module, dimensions: int) -> tuple[nn.Module, fx.Graph]:
    """Return a module around a model, and the operations that its forward consists of.

    Args:
        model: the model.
        dimensions: number of dimensions of a batch of inputs.

    Raises:
        Refused: the forward cannot be followed.
    """
    root = nn.Sequential(model)
    try:
        traced = _Tracer(dimensions).trace(root)
    except Exception as error:  # whatever a forward does with a stand-in for its input
        why = " ".join(f"{type(error).__name__} {error}".split())[:240]
        raise Refused(
            f"the model cannot be read as a graph ({why}): bounds need a module with a forward whose "
            "operations do not depend on the values of its inputs"
        ) from error
    return root, traced
