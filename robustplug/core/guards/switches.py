"""The switches of the process that change what any code computes: read them, compare, and put them back."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.modules.module as hooks
from torch import overrides
from torch.utils import _python_dispatch as dispatch

from ...devices.precision import float32_products, set_float32_products

_C: Any = torch._C
_CUDA: Any = torch.backends.cuda
_FUNCTIONS: Any = overrides
_SMALLEST = math.ulp(0.0)
_HOOKS = tuple(name for name in vars(hooks) if name.startswith("_global_") and name.endswith("hooks"))
_HANDLED = (signal.SIGINT, signal.SIGTERM)
# Guards of inference mode that are never left: the destructor would switch it on again.
_LEFT: list[Any] = []


class Switch(NamedTuple):
    """Describe one switch: its name in messages, and how to read and to set it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _leave_inference(mode: bool) -> None:
    if torch.is_inference_mode_enabled() != mode:
        _LEFT.append(_C._InferenceMode(mode))
        _LEFT[-1].__enter__()


def _autocast() -> tuple[Any, ...]:
    devices = ("cpu", "cuda")
    return (
        *((name, torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in devices),
        torch.is_autocast_cache_enabled(),
    )


def _set_autocast(state: tuple[Any, ...]) -> None:
    *devices, cached = state
    for name, enabled, dtype in devices:
        torch.set_autocast_enabled(name, enabled)
        torch.set_autocast_dtype(name, dtype)
    torch.set_autocast_cache_enabled(cached)
    torch.clear_autocast_cache()


def _modes() -> tuple[Any, ...]:
    # A default device is such a mode, too.
    if not _C._len_torch_function_stack():
        return ()
    return tuple(_FUNCTIONS._get_current_function_mode_stack())


def _set_modes(stack: tuple[Any, ...]) -> None:
    while _C._len_torch_function_stack():
        _FUNCTIONS._pop_mode()
    for mode in stack:
        _FUNCTIONS._push_mode(mode)
    from torch.utils._device import DeviceContext

    devices = [mode for mode in stack if isinstance(mode, DeviceContext)]
    holder: Any = torch._GLOBAL_DEVICE_CONTEXT
    holder.device_context = devices[0] if devices else None


def _dispatch_modes() -> tuple[Any, ...]:
    if not _C._len_torch_dispatch_stack():
        return ()
    return tuple(dispatch._get_current_dispatch_mode_stack())


def _set_dispatch_modes(stack: tuple[Any, ...]) -> None:
    while _C._len_torch_dispatch_stack():
        dispatch._pop_mode()
    for mode in stack:
        dispatch._push_mode(mode)


def _attention() -> tuple[bool, ...]:
    return (
        _CUDA.flash_sdp_enabled(),
        _CUDA.mem_efficient_sdp_enabled(),
        _CUDA.math_sdp_enabled(),
        _CUDA.cudnn_sdp_enabled(),
    )


def _set_attention(state: tuple[bool, ...]) -> None:
    setters = (
        _CUDA.enable_flash_sdp,
        _CUDA.enable_mem_efficient_sdp,
        _CUDA.enable_math_sdp,
        _CUDA.enable_cudnn_sdp,
    )
    for enable, value in zip(setters, state, strict=True):
        enable(value)


def _numpy_errors() -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:  # what it starts with
        return {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    return numpy.geterr()


def _set_numpy_errors(state: dict[str, Any]) -> None:
    sys.modules["numpy"].seterr(**state)


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - read before and after every call
    except FileNotFoundError:
        return ""


def _go_back(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder)


def _handlers() -> tuple[Any, ...]:
    return tuple(signal.getsignal(number) for number in _HANDLED)


def _set_handlers(state: tuple[Any, ...]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in zip(_HANDLED, state, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _global_hooks() -> tuple[Any, ...]:
    return tuple(tuple(getattr(hooks, name).items()) for name in _HOOKS)


def _set_global_hooks(state: tuple[Any, ...]) -> None:
    for name, known in zip(_HOOKS, state, strict=True):
        table = getattr(hooks, name)
        table.clear()
        table.update(known)


# In this order they are put back: leaving inference mode enables gradients.
QUICK: Sequence[Switch] = (
    Switch("inference mode", torch.is_inference_mode_enabled, _leave_inference),
    Switch("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
    Switch(
        "anomaly detection",
        lambda: (_C.is_anomaly_enabled(), _C.is_anomaly_check_nan_enabled()),
        lambda state: torch.autograd.set_detect_anomaly(*state),
    ),
    Switch("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Switch("the default device or a mode of torch's functions", _modes, _set_modes),
    Switch("a mode of torch's dispatcher", _dispatch_modes, _set_dispatch_modes),
    Switch(
        "torch.use_deterministic_algorithms",
        lambda: (_C._get_deterministic_algorithms(), _C._get_deterministic_algorithms_warn_only()),
        lambda state: torch.use_deterministic_algorithms(state[0], warn_only=state[1]),
    ),
    Switch(
        "cuDNN's flags",
        lambda: (_C._get_cudnn_enabled(), _C._get_cudnn_benchmark(), _C._get_cudnn_deterministic()),
        lambda state: (
            _C._set_cudnn_enabled(state[0]),
            _C._set_cudnn_benchmark(state[1]),
            _C._set_cudnn_deterministic(state[2]),
        ),
    ),
    Switch("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Switch("autocasting", _autocast, _set_autocast),
)
ALL: Sequence[Switch] = (
    *QUICK,
    Switch("the precision of float32 products", float32_products, set_float32_products),
    Switch("the kernels of attention", _attention, _set_attention),
    Switch("oneDNN", _C._get_mkldnn_enabled, _C._set_mkldnn_enabled),
    Switch(
        "the flushing of denormal numbers",
        lambda: _SMALLEST * 1.0 == 0.0,
        lambda on: torch.set_flush_denormal(on),
    ),
    Switch("NumPy's error handling", _numpy_errors, _set_numpy_errors),
    Switch("hooks of all modules", _global_hooks, _set_global_hooks),
    Switch("the working folder", _folder, _go_back),
    Switch("the signal handlers", _handlers, _set_handlers),
)


def read(switches: Sequence[Switch] = ALL) -> list[Any]:
    """Return the states of some switches."""
    return [switch.read() for switch in switches]


def put_back(before: Sequence[Any], switches: Sequence[Switch] = ALL) -> list[str]:
    """Set the switches to what `read` returned before, and return the names of those that had changed."""
    if read(switches) == before:
        return []
    # Each is compared again: the first one put back may put others back.
    changed = [switch.name for switch, value in zip(switches, before, strict=True) if switch.read() != value]
    for switch, value in zip(switches, before, strict=True):
        if switch.read() != value:
            switch.write(value)
    return changed
