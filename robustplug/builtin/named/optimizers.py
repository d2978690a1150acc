"""The optimizers of torch.optim by their names."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...api import Library, Refused, classes_in
from .common import tried

if TYPE_CHECKING:
    from . import TorchOptimizerOptions

RESERVED = {
    "params": "are the parameters that the method trains",
    "maximize": "follows from the method, for each of its parameter groups",
    "differentiable": "would keep the graphs of all updates",
}
UNFIT = {
    "LBFGS": "evaluates the loss several times for one update, and a method makes one loss for each",
    "SparseAdam": "takes sparse gradients alone",
}


def optimizer_classes() -> dict[str, type[Any]]:
    """Return the optimizers of torch by name."""
    found = classes_in(torch.optim, torch.optim.Optimizer)
    return {name: value for name, value in found.items() if value is not torch.optim.Optimizer}


LIBRARY = Library("torch.optim", "optimizer", optimizer_classes, RESERVED, lambda name, _: UNFIT.get(name))


def checked(options: TorchOptimizerOptions) -> dict[str, Any]:
    """Return the arguments of the optimizer, converted.

    Raises:
        ValueError, ExceptionGroup: there is no such optimizer, or an argument is wrong.
    """
    arguments, made = LIBRARY.checked(options), optimizer_classes()[options.name]

    def build(**given: Any) -> None:
        made([nn.Parameter(torch.zeros(1, 1))], **given)

    tried(build, arguments, made.__init__, f"torch's {options.name}")
    return arguments


def torch_optimizer(
    options: TorchOptimizerOptions, *, params: Any, maximize: bool = False, **changes: Any
) -> torch.optim.Optimizer:
    """Build an optimizer of torch.

    Raises:
        Refused: it cannot maximize, or cannot train these parameters.
    """
    made = optimizer_classes()[options.name]
    if "maximize" in inspect.signature(made.__init__).parameters:
        changes["maximize"] = maximize
    elif maximize:
        raise Refused(f"torch's {options.name} cannot maximize, as this method needs: choose another one")
    try:
        built: torch.optim.Optimizer = made(params, **{**checked(options), **changes})
    except ValueError as error:
        raise Refused(f"torch's {options.name} cannot train these parameters: {error}") from error
    return built
