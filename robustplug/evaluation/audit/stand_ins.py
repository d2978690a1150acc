"""Modules that compute what a model computes, with gradients that an optimiser can follow.

An attack runs on a stand-in; its examples are judged on the model itself. Athalye et al. 2018
(arXiv:1802.00420): straight-through and smooth stand-ins are their BPDA (§4.1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.calling.stand_ins import link, straight_through

# Number of layers, from the front, that may be the first with a useful gradient.
TRIED = 24


@dataclass(frozen=True)
class Bridge:
    """State where gradients pass by code that has none.

    Attributes:
        entry: name of the layer whose input is linked to the model's input; "" for none.
        exit: name of the layer whose output is linked to the model's output; "" for none.
    """

    entry: str = ""
    exit: str = ""

    def __bool__(self) -> bool:
        return bool(self.entry or self.exit)


class Bridged(nn.Module):
    """A model whose gradients pass by its parts without a gradient, as if those were the identity.

    Args:
        model: the model.
        bridge: where the gradients pass by.
    """

    def __init__(self, model: nn.Module, bridge: Bridge) -> None:
        super().__init__()
        self.model, self.bridge = model, bridge

    def forward(self, x: Tensor) -> Any:
        """Return the model's outputs."""
        layers = dict(self.model.named_modules())
        found: list[Tensor] = []
        with contextlib.ExitStack() as stack:
            if self.bridge.entry and torch.is_grad_enabled():
                stack.enter_context(_entering(layers[self.bridge.entry], x, []))
            if self.bridge.exit:
                stack.enter_context(_leaving(layers[self.bridge.exit], found))
            output = self.model(x)
        if found and isinstance(output, Tensor) and found[-1].shape == output.shape:
            return straight_through(output, found[-1])
        return output


@contextlib.contextmanager
def _entering(layer: nn.Module, x: Tensor, seen: list[Tensor]) -> Iterator[None]:
    """Link the input of a layer's first call to x for a block, and collect the linked input."""

    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> Any:
        if seen or not arguments or not isinstance(arguments[0], Tensor):
            return None
        # A model that calls its network without gradients gets them back from here on.
        torch.set_grad_enabled(True)
        path = link(x, arguments[0])
        if path is None:
            return None
        seen.append(straight_through(arguments[0], path))
        return (seen[0], *arguments[1:])

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _leaving(layer: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield
    finally:
        handle.remove()


def find_bridge(model: nn.Module, x: Tensor) -> Bridge | None:
    """Find where gradients have to be led past a model's parts; None if no place gives gradients.

    Args:
        model: a model without useful gradients at x.
        x: some inputs (N, …).
    """
    names = [
        name
        for name, module in model.named_modules()
        if name and next(module.parameters(recurse=False), None) is not None
    ]
    calls = _calls(model, x, names)
    last = next((name for name in reversed(calls) if calls[name]), "")
    for entry in ["", *list(calls)[:TRIED]]:
        for leave in ("", last):
            bridge = Bridge(entry, leave)
            if bridge and _leads_back(Bridged(model, bridge), x):
                return bridge
    return None


def _calls(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, bool]:
    """Return the layers that a forward pass calls, in order, and whether their output has the final shape."""
    shapes: dict[str, Any] = {}
    layers = dict(model.named_modules())
    with contextlib.ExitStack() as stack:
        for name in names:

            def note(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                shapes.setdefault(name, getattr(output, "shape", None))

            stack.callback(layers[name].register_forward_hook(note).remove)
        with torch.no_grad():
            output = model(x)
    return {name: shape == getattr(output, "shape", None) for name, shape in shapes.items()}


def _leads_back(model: nn.Module, x: Tensor) -> bool:
    """Return whether most samples have a gradient."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        output = model(leaf)
        if not isinstance(output, Tensor) or not output.requires_grad:
            return False
        top = output.float().amax(1) - output.float().mean(1)
        (gradient,) = torch.autograd.grad(top.sum(), leaf, allow_unused=True)
    return gradient is not None and float((gradient.flatten(1).abs().amax(1) > 0).float().mean()) > 0.5


class Borrowed(nn.Module):
    """A model with the gradients of a substitute: each step follows the substitute at the model's outputs.

    Args:
        model: the model.
        substitute: a network from the same inputs to as many outputs.
    """

    def __init__(self, model: nn.Module, substitute: nn.Module) -> None:
        super().__init__()
        self.model, self.substitute = model, substitute

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's outputs."""
        with torch.no_grad():
            output: Tensor = self.model(x)
        return straight_through(output, self.substitute(x)) if torch.is_grad_enabled() else output


class Rescaled(nn.Module):
    """A model whose logits are centred and multiplied: the same decisions, another temperature.

    Args:
        model: the model.
        scale: positive factor of the logits.
    """

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the rescaled logits."""
        output: Tensor = self.model(x)
        output = output.float()
        # Large equal logits would lose their differences to rounding.
        return (output - output.mean(1, keepdim=True)) * self.scale
