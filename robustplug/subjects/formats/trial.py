"""Try a model on a few images: check that it returns logits, and collect notes for the reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...core.calling.inputs import call
from ...core.calling.samples import apart
from ...core.modules import evaluating
from ...core.random import isolated, stream
from ...errors import RunError
from ..data.arrays import UNIT, Bounds, broadcast, shown
from .adapter import Adapter, Key, as_tensor
from .contents import first_line

# Share of the largest logit that differences by rounding, TensorFloat-32 included, do not reach.
_ROUNDING = 0.01
_DECISIONS = (
    "it returns only decisions, a class index for each image: run decision-based (hard-label) attacks on it; "
    "results of attacks that use scores or gradients are meaningless"
)


class Shape(NamedTuple):
    """Hold what a task requires of a model: inputs, images (C, H, W) within bounds, to logits (classes,)."""

    image: tuple[int, ...]
    classes: int
    bounds: Bounds = UNIT

    def lowest(self, rows: int, device: torch.device) -> Tensor:
        """Return inputs at the lower bound: black images."""
        return self._from_unit(torch.zeros(rows, *self.image)).to(device)

    def drawn(self, rows: int, rng: torch.Generator) -> Tensor:
        """Return inputs drawn uniformly between the bounds."""
        return self._from_unit(torch.rand(rows, *self.image, generator=rng))

    def _from_unit(self, x: Tensor) -> Tensor:
        low, high = (broadcast(side, x.dim()) for side in self.bounds)
        return low + x * (high - low)


class Found(NamedTuple):
    """Hold which of a model's outputs to use.

    Attributes:
        key: key of the output; None for the only one.
        decisions: True if the output contains class indices, not logits.
        notes: notes for the reader.
    """

    key: Key
    decisions: bool
    notes: list[str]


def find_logits(adapter: Adapter, name: str, shape: Shape, device: torch.device) -> Found:
    """Find the logits, or else the class indices, among a model's outputs.

    Raises:
        RunError: the model does not accept the images, or none or several of its outputs can be logits.
    """
    x = shape.lowest(2, device)
    rows = len(adapter.padded(x[: adapter.sizes.most]))
    with _at_rest(adapter, name, shape, device):
        output = adapter.function(adapter.padded(x[: adapter.sizes.most]))
    if isinstance(as_tensor(output, device), Tensor):
        numbers = _is_numbers(output, rows, device)
        return Found(None, numbers, [_DECISIONS] if numbers else [])
    parts = _parts(output)
    fitting = [key for key, part in parts.items() if _is_logits(part, rows, shape.classes, device)]
    what = ", ".join(f"{key} {_describe(part)}" for key, part in parts.items())
    if "logits" in fitting:
        return Found("logits", False, [f'its outputs are {what}; "logits" is used'])
    if len(fitting) == 1 or (fitting and isinstance(output, list | tuple)):
        return Found(fitting[0], False, [f"its outputs are {what}; {fitting[0]} is used as the logits"])
    numbers_at = [key for key, part in parts.items() if _is_numbers(part, rows, device)]
    if not fitting and len(numbers_at) == 1:
        taken = f"its outputs are {what}; {numbers_at[0]} is used as the class indices"
        return Found(numbers_at[0], True, [taken, _DECISIONS])
    raise RunError(
        f"{name} must return logits ({rows}, {shape.classes}) for {rows} images, not a "
        f"{type(output).__name__} of: {what or 'nothing'}; wrap it in a function that returns the logits"
    )


def check_logits(module: nn.Module, name: str, shape: Shape, device: torch.device) -> list[str]:
    """Run a model on a few images and return notes on its outputs for the reader.

    Args:
        module, name, shape, device: the model, its name for messages, its shapes, and the device.

    Raises:
        RunError: the model does not accept the images, or its outputs are not logits (N, classes).
    """
    zeros = shape.lowest(2, device)
    images = shape.drawn(3, stream(0, "trial images")).to(device)
    with _at_rest(module, name, shape, device):
        on_zeros = call(module, zeros)
    _check(on_zeros, name, (len(zeros), shape.classes))
    with _at_rest(module, name, shape, device, rows=3):
        three, again, two = call(module, images), call(module, images), call(module, images[:2])
    _check(three, name, (len(images), shape.classes))
    if not three.isfinite().all():
        raise RunError(f"{name} returns outputs that are not finite numbers (NaN or infinite)")
    return list(_notes(on_zeros, three.float(), again.float(), two.float()))


def why_no_gradients(module: nn.Module, shape: Shape, device: torch.device) -> str:
    """Return why a model has no gradient of its logits with respect to the images; "" if it has one."""
    x = shape.lowest(2, device).requires_grad_()
    try:
        with evaluating(module), isolated(0, device), torch.enable_grad():
            output = call(module, x)
            if not output.requires_grad:
                return "its outputs are detached from the images"
            (slopes,) = torch.autograd.grad(output.sum(), x, allow_unused=True)
            return "its outputs do not depend on the images" if slopes is None else ""
    except Exception as error:  # the model may run any code; numpy, for example, refuses such images
        return f"{type(error).__name__}: {first_line(error)}"


@contextlib.contextmanager
def _at_rest(
    module: nn.Module, name: str, shape: Shape, device: torch.device, rows: int = 2
) -> Iterator[None]:
    """Run a model in eval mode, without a graph, and report the images on which it fails."""
    try:
        with apart(module, watch=True), isolated(0, device), torch.no_grad():
            yield
    except Exception as error:  # the model may run any code
        hint = "; it accepts 2: export it with a dynamic batch size" if rows > 2 else ""
        raise RunError(
            f"{name} cannot take {rows} images of shape {shape.image}, float32 in {shown(shape.bounds)}, on "
            f"{device}: "
            f"{type(error).__name__}: {first_line(error)}{hint}"
        ) from error


def _parts(output: Any) -> Mapping[Key, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "logits"):
        return {"logits": output.logits}
    return dict(enumerate(output)) if isinstance(output, list | tuple) else {}


def _is_logits(part: Any, rows: int, classes: int, device: torch.device) -> bool:
    tensor = as_tensor(part, device)
    return (
        isinstance(tensor, Tensor) and tuple(tensor.shape) == (rows, classes) and tensor.is_floating_point()
    )


def _is_numbers(part: Any, rows: int, device: torch.device) -> bool:
    tensor = as_tensor(part, device)
    integers = isinstance(tensor, Tensor) and not (tensor.is_floating_point() or tensor.is_complex())
    return integers and tuple(tensor.shape) == (rows,) and tensor.dtype != torch.bool


def _describe(part: Any) -> str:
    return str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__


def _check(output: Any, name: str, wanted: tuple[int, int]) -> None:
    """Compare the outputs with the shape (rows, classes).

    Raises:
        RunError: they differ.
    """
    rows, classes = wanted
    here = tuple(output.shape)
    if here == wanted and output.is_floating_point():
        return
    if here == (rows,):
        hint = "it must return a floating-point logit for each class, or class indices as integers"
    elif here == wanted:
        hint = "its logits must be floating-point numbers"
    elif len(here) == 2 and here[0] == rows:
        hint = f"it has {here[1]} classes, the task {classes}: choose the task that it was trained on"
    else:
        hint = f"it must return one row of {classes} logits for each image"
    raise RunError(f"{name} returns {output.dtype} of shape {here} for {rows} images, not {wanted}: {hint}")


def _notes(on_zeros: Tensor, three: Tensor, again: Tensor, two: Tensor) -> Iterator[str]:
    rounding = _ROUNDING * float(three.abs().max()) + 1e-6
    if not on_zeros.isfinite().all():
        yield "outputs for an all-black image are not finite numbers"
    if float((three - again).abs().max()) > rounding:
        yield (
            "outputs for the same images differ from call to call: dropout in training mode, or a randomised "
            "defence, which requires attacks that average over its randomness (EOT)"
        )
    elif float((three[:2] - two).abs().max()) > rounding:
        yield (
            "outputs for an image depend on the other images of its batch, as with BatchNorm in training "
            "mode: export the model after model.eval()"
        )
