"""Find the precision, the memory layout and the number of threads that train the fastest here."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

# bfloat16 must win clearly: a choice by a hair would differ from run to run.
WORTHWHILE = 0.75
# Numbers in a batch below which one thread is as fast as several.
TINY = 32_768


def has_native_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 itself; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


def median_seconds(work: Callable[[], None], device: torch.device, repeats: int = 3) -> float:
    """Time some work, after one run to warm up."""
    times = []
    for number in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def training_seconds(model: nn.Module, x: Tensor, dtype: torch.dtype) -> float:
    """Time a forward and backward of a copy of the model on a batch."""
    model = copy.deepcopy(model).train()

    def work() -> None:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            output = model(x)
        output.float().sum().backward()

    return median_seconds(work, x.device)


@contextlib.contextmanager
def fitting_threads(x: object) -> Iterator[None]:
    """Use one thread for a block if batches like x are tiny, as those of 8x8 images are.

    Threads that share so little work wait for each other longer than they compute.
    """
    before = torch.get_num_threads()
    tiny = False
    if isinstance(x, Tensor) and x.device.type == "cpu":
        # A model makes a vector of each whole number, such as that of a word.
        tiny = x.numel() < (TINY if x.is_floating_point() else TINY // 4)
    try:
        if tiny:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def in_channels_last(model: nn.Module) -> Iterator[None]:
    """Keep the weights of convolutions channels-last for a block: it is the faster layout for images."""
    layout = torch.channels_last
    turned = [p for p in model.parameters() if p.dim() == 4 and not p.is_contiguous(memory_format=layout)]
    try:
        for parameter in turned:
            parameter.data = parameter.data.contiguous(memory_format=layout)
        yield
    finally:
        for parameter in turned:
            parameter.data = parameter.data.contiguous()


def choose_channels_last(option: bool | str, x: object) -> bool:
    """Return whether images are kept channels-last in memory: "auto" means wherever they are images."""
    images = isinstance(x, Tensor) and x.dim() == 4
    return images and (option is True or option == "auto")


def choose_precision(option: str, model: nn.Module, x: object) -> str:
    """Return "float32" or "bfloat16".

    "auto" takes bfloat16 where the hardware has it and a forward and backward of this model on this
    batch takes at most 0.75 of its float32 time.

    Args:
        option: "auto", "float32" or "bfloat16".
        model: on its device, in the layout that training uses; left as it is.
        x: a training batch.
    """
    if option != "auto":
        return option
    if not isinstance(x, Tensor) or not x.is_floating_point() or not has_native_bfloat16(x.device):
        return "float32"
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "float32"
    exact = training_seconds(model, x, torch.float32)
    return "bfloat16" if training_seconds(model, x, torch.bfloat16) <= WORTHWHILE * exact else "float32"
