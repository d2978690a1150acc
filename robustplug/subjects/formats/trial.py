"""Try a model on a few images: are its outputs logits, and what should the reader of a result know?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...core.modules import evaluating
from ...core.random import isolated, stream
from ...errors import RunError
from .adapter import Adapter, Key, as_tensor
from .contents import first_line

# Share of the largest logit: other sums of the same numbers, TensorFloat-32 included, stay below it.
_ROUNDING = 0.01
_PROBABILITIES = (
    "outputs look like probabilities: attacks on logits are weakened by the softmax, whose gradients vanish, "
    "and the robust accuracy comes out too high; remove the softmax"
)
_DECISIONS = (
    "it gives decisions only, a class number for each image: hard-label attacks can be run on it, and what "
    "attacks on scores or gradients find means nothing"
)


class Shape(NamedTuple):
    """Hold what a task asks of a model: images (C, H, W) to logits (classes,)."""

    image: tuple[int, ...]
    classes: int


class Found(NamedTuple):
    """Tell which of a model's outputs to use.

    Attributes:
        key: of the output; None for the only one.
        decisions: it holds class numbers, not logits.
        notes: for the reader.
    """

    key: Key
    decisions: bool
    notes: list[str]


def find_logits(adapter: Adapter, name: str, shape: Shape, device: torch.device) -> Found:
    """Tell which of a model's outputs are the logits, or else the class numbers.

    Raises:
        RunError: the model cannot take the images, or none of its outputs, or several, can be logits.
    """
    x = torch.zeros(2, *shape.image, device=device)
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
        return Found("logits", False, [f'its outputs are {what}; "logits" was taken'])
    if len(fitting) == 1 or (fitting and isinstance(output, list | tuple)):
        return Found(fitting[0], False, [f"its outputs are {what}; {fitting[0]} was taken as the logits"])
    numbers_at = [key for key, part in parts.items() if _is_numbers(part, rows, device)]
    if not fitting and len(numbers_at) == 1:
        taken = f"its outputs are {what}; {numbers_at[0]} was taken as the class numbers"
        return Found(numbers_at[0], True, [taken, _DECISIONS])
    raise RunError(
        f"{name} must return logits ({rows}, {shape.classes}) for {rows} images, not a "
        f"{type(output).__name__} of: {what or 'nothing'}; wrap it in a function that returns the logits"
    )


def check_logits(
    module: nn.Module, name: str, shape: Shape, device: torch.device, decisions: bool = False
) -> list[str]:
    """Run a model on a few images and return notes on its outputs for the reader.

    Args:
        module, name, shape, device: what is run, and on what.
        decisions: its logits are 1 and 0, and no probabilities.

    Raises:
        RunError: it cannot take the images, or its outputs are no logits (N, classes).
    """
    zeros = torch.zeros(2, *shape.image, device=device)
    images = torch.rand(3, *shape.image, generator=stream(0, "trial images")).to(device)
    with _at_rest(module, name, shape, device):
        on_zeros = module(zeros)
    _check(on_zeros, name, (len(zeros), shape.classes))
    with _at_rest(module, name, shape, device, rows=3):
        three, again, two = module(images), module(images), module(images[:2])
    _check(three, name, (len(images), shape.classes))
    if not three.isfinite().all():
        raise RunError(f"{name} gives outputs that are not finite numbers (NaN or infinite)")
    notes = _notes(on_zeros, three.float(), again.float(), two.float())
    return [note for note in notes if not (decisions and note is _PROBABILITIES)]


def why_no_gradients(module: nn.Module, shape: Shape, device: torch.device) -> str:
    """Tell why a model gives no gradient of its logits with respect to the images; "" when it does."""
    x = torch.zeros(2, *shape.image, device=device, requires_grad=True)
    try:
        with evaluating(module), isolated(0, device), torch.enable_grad():
            output = module(x)
            if not output.requires_grad:
                return "its outputs are detached from the images"
            torch.autograd.grad(output.sum(), x)
            return ""
    except Exception as error:  # any code may be in there; numpy, for one, refuses such images
        return f"{type(error).__name__}: {first_line(error)}"


@contextlib.contextmanager
def _at_rest(
    module: nn.Module, name: str, shape: Shape, device: torch.device, rows: int = 2
) -> Iterator[None]:
    """Run a model in eval mode, without a graph, and say what it is that it cannot take."""
    try:
        with evaluating(module), isolated(0, device), torch.no_grad():
            yield
    except Exception as error:  # any code may be in there
        hint = "; it takes 2: export it with a free batch size" if rows > 2 else ""
        raise RunError(
            f"{name} cannot take {rows} images of shape {shape.image}, float32 in [0, 1], on {device}: "
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
        hint = "it must return a floating-point logit for each class, or class numbers as integers"
    elif here == wanted:
        hint = "its logits must be floating-point numbers"
    elif len(here) == 2 and here[0] == rows:
        hint = f"it tells {here[1]} classes apart, the task {classes}: choose the task that it was made for"
    else:
        hint = f"it must return one row of {classes} logits for each image"
    raise RunError(f"{name} returns {output.dtype} of shape {here} for {rows} images, not {wanted}: {hint}")


def _notes(on_zeros: Tensor, three: Tensor, again: Tensor, two: Tensor) -> Iterator[str]:
    rounding = _ROUNDING * float(three.abs().max()) + 1e-6
    if not on_zeros.isfinite().all():
        yield "outputs for an all-black image are not finite numbers"
    if bool((three >= 0).all()) and torch.allclose(three.sum(1), torch.ones(3).to(three), atol=1e-3):
        yield _PROBABILITIES
    if float((three - again).abs().max()) > rounding:
        yield (
            "outputs for the same images differ from call to call: dropout in training mode, or a random "
            "defence, which needs attacks that average over its randomness"
        )
    elif float((three[:2] - two).abs().max()) > rounding:
        yield (
            "outputs for an image depend on the other images of its batch, as with BatchNorm in training "
            "mode: export the model after model.eval()"
        )
