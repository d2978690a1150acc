"""Algorithms that give the same bits in every run, on a device where others are faster."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch

# cuBLAS sums in a fixed order only in workspaces of fixed sizes; it reads the variable itself.
_CUBLAS, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
# torch's compiler reads it when it is imported.
_INDUCTOR = "TORCHINDUCTOR_DETERMINISTIC"


def _switch(on: bool, warn_only: bool) -> None:
    # `use_deterministic_algorithms` imports the compiler to tell it, which takes as long as importing torch.
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(on, warn_only=warn_only)
    else:
        torch.set_deterministic_debug_mode(("warn" if warn_only else "error") if on else "default")


@contextlib.contextmanager
def deterministic(on: bool, strict: bool = True) -> Iterator[None]:
    """Compute with deterministic algorithms alone for a block, and restore torch's settings afterwards.

    cuDNN chooses none by a search, since the fastest one depends on the moment.

    Args:
        on: False leaves all settings as they are.
        strict: whether torch raises a RuntimeError at an operation that has no deterministic algorithm on the
            device, see `errors.not_deterministic`; if not, it warns and computes it.
    """
    if not on:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    filling: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        filling.fill_uninitialized_memory,
    )
    variables = {name: os.environ.get(name) for name in (_CUBLAS, _INDUCTOR)}
    try:
        if variables[_CUBLAS] not in _WORKSPACES:
            os.environ[_CUBLAS] = _WORKSPACES[0]
        os.environ[_INDUCTOR] = "1"
        _switch(True, warn_only=not strict)
        cudnn.deterministic, cudnn.benchmark = True, False
        # Nothing here reads memory before it is written, and filling it costs a kernel for each tensor.
        filling.fill_uninitialized_memory = False
        yield
    finally:
        _switch(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2], before[3]
        filling.fill_uninitialized_memory = before[4]
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
