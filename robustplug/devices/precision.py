"""Choose precision, memory layout and number of threads, and compute in half precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Operations of a forward pass on a batch from which bfloat16 clearly pays where it is native; below, casting
# costs what it saves. small-cnn at batch 128 makes 0.4e9 of them on digits and 4.9e9 on MNIST.
WORTHWHILE = 1e9
# Size of a batch, in numbers, below which one thread is as fast as several.
TINY = 32_768
# Where torch multiplies float32 in a precision that can be chosen.
_PRODUCTS = (("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn"), ("mkldnn", "matmul"), ("mkldnn", "conv"))
_C: Any = torch._C


HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Factor of gradients on their way back in float16, whose smallest number is 6·10⁻⁸.
LOSS_SCALE = 1024.0


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class HalfPrecision(nn.Module):
    """Compute a model in half precision, where autocasting does; outputs and input gradients are float32.

    In float16, the gradient goes backwards through the model multiplied by LOSS_SCALE, and is divided by it
    at the inputs, in float32. Gradients of weights would not be divided: attacks have none.

    Args:
        model: the model; it is called with the modes and weights that it has.
        dtype: torch.bfloat16 or torch.float16.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x: Any) -> Any:
        """Return the model's outputs, as float32."""
        device = next((value.device.type for value in self.model.parameters()), "cpu")
        scales = self.dtype == torch.float16 and isinstance(x, Tensor) and x.is_floating_point()
        x = _Scaled.apply(x, 1 / LOSS_SCALE) if scales else x
        with torch.autocast(device, self.dtype):
            output = pytree.tree_map_only(Tensor, _single, self.model(x))
        return pytree.tree_map_only(Tensor, _scaled_up, output) if scales else output

    def around(self, model: nn.Module) -> HalfPrecision:
        """Return this module for its own model, and one of the same precision for another, a stand-in."""
        return self if model is self.model else HalfPrecision(model, self.dtype)


def _single(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def _scaled_up(value: Tensor) -> Tensor:
    scaled: Tensor = _Scaled.apply(value, LOSS_SCALE) if value.is_floating_point() else value
    return scaled


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16 natively; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


@contextlib.contextmanager
def fitting_threads(x: object) -> Iterator[None]:
    """Use one thread for a block if batches like x are tiny, such as those of 8x8 images.

    Threads that share so little work wait for each other longer than they compute.
    """
    before = torch.get_num_threads()
    tiny = False
    if isinstance(x, Tensor) and x.device.type == "cpu":
        # A model turns each whole number, such as a word's, into a vector.
        tiny = x.numel() < (TINY if x.is_floating_point() else TINY // 4)
    try:
        if tiny:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def in_channels_last(model: nn.Module) -> Iterator[None]:
    """Keep the weights of convolutions channels-last for a block, which is the faster layout for images."""
    layout = torch.channels_last
    images = [p for p in model.parameters() if p.dim() == 4]
    turned = [(p, p.data) for p in images if not p.is_contiguous(memory_format=layout)]
    try:
        for parameter, own in turned:
            parameter.data = own.contiguous(memory_format=layout)
        yield
    finally:
        for parameter, own in turned:
            parameter.data = own  # the same memory: a captured update reads the weights where they were


def choose_channels_last(option: bool | str, x: object) -> bool:
    """Return whether to keep inputs channels-last in memory; "auto" does so for all images."""
    images = isinstance(x, Tensor) and x.dim() == 4
    return images and (option is True or option == "auto")


def choose_precision(option: str, model: nn.Module, x: object, operations: Callable[[], float]) -> str:
    """Return "float32" or "bfloat16".

    "auto" follows from the hardware and the model, so that every start chooses the same: bfloat16 if the
    hardware multiplies it natively, and if a forward pass on this batch makes at least 1e9 operations.

    Args:
        option: "auto", "float32" or "bfloat16".
        model: model on its device.
        x: a training batch.
        operations: returns the operations of a forward pass on it; only called if they decide.
    """
    if option != "auto":
        return option
    if not isinstance(x, Tensor) or not x.is_floating_point() or not has_native_bfloat16(x.device):
        return "float32"
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "float32"
    return "bfloat16" if operations() >= WORTHWHILE else "float32"


def float32_products() -> tuple[Any, ...]:
    """Return the precision of products of float32, by torch's older interface and by its newer one."""
    try:
        older: Any = (
            _C._get_cublas_allow_tf32(),
            _C._get_cudnn_allow_tf32(),
            torch.get_float32_matmul_precision(),
        )
    except RuntimeError:  # both interfaces were used
        older = None
    # torch has the newer interface since 2.9.
    places = _PRODUCTS if hasattr(_C, "_get_fp32_precision_getter") else ()
    return older, {place: _C._get_fp32_precision_getter(*place) for place in places}


def set_float32_products(state: tuple[Any, ...]) -> None:
    """Set what `float32_products` returned."""
    older, newer = state
    if older is not None:
        torch.set_float32_matmul_precision(older[2])
        _C._set_cublas_allow_tf32(older[0])
        _C._set_cudnn_allow_tf32(older[1])
    for place, value in newer.items():
        if _C._get_fp32_precision_getter(*place) != value:
            _C._set_fp32_precision_setter(*place, value)
