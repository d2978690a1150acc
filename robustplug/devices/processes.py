"""Device, precision and processes, all through Hugging Face Accelerate."""

from __future__ import annotations

import contextlib
import os
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import RunError
from .graphs import capturing_on
from .precision import float32_products, set_float32_products

if TYPE_CHECKING:
    from accelerate import Accelerator

_TYPES = {"q": torch.int64, "d": torch.float64}


class Memory(Protocol):
    """The part of a per-sample memory that processes exchange."""

    def synchronize(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Exchange the values that were written since the last call."""

    def forget_writes(self) -> None:
        """Drop the record of writes."""


@dataclass
class Processes:
    """Wrap an Accelerator with the operations that the loop needs.

    Attributes:
        accelerator: the Accelerator of this run.
    """

    accelerator: Accelerator

    @property
    def device(self) -> torch.device:
        """Return this process's device."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """Return the number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def bfloat16(self) -> bool:
        """Return whether the wrapped module autocasts to bfloat16."""
        return str(self.accelerator.mixed_precision) == "bf16"

    @property
    def main(self) -> bool:
        """Return whether this process prints and writes."""
        return bool(self.accelerator.is_main_process)

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of a tensor over processes, which may have different numbers of rows."""
        if self.world == 1:
            return rows
        counts = self.accelerator.gather(torch.tensor([len(rows)], device=self.device)).tolist()
        if not any(counts):
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = self.accelerator.gather(padded).split(max(counts))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_numbers(self, values: array[int] | array[float]) -> Tensor:
        """Concatenate numbers over processes: (N,) on the CPU, int64 for an array "q", float64 for "d"."""
        dtype = _TYPES[values.typecode]
        # A copy: an array that lends its memory cannot grow.
        own = torch.frombuffer(values, dtype=dtype).clone() if values else torch.empty(0, dtype=dtype)
        return own if self.world == 1 else self.gather(own.to(self.device)).cpu()

    def total(self, values: list[float]) -> list[float]:
        """Add up numbers over processes."""
        if self.world == 1:
            return values
        rows = torch.tensor([values], dtype=torch.float64, device=self.device)
        return self.gather(rows).sum(0).tolist()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any process."""
        return self.total([float(flag)])[0] > 0

    def from_main(self, value: Any) -> float:
        """Return the main process's number on every process."""
        return self.total([float(value) if self.main else 0.0])[0]

    def gather_lines(self, lines: list[str]) -> list[str]:
        """Concatenate lists of strings over processes."""
        if self.world == 1:
            return lines
        from accelerate.utils import gather_object

        gathered: list[str] = gather_object(lines)
        return gathered

    def lines_from_main(self, lines: list[str]) -> list[str]:
        """Return the main process's strings on every process."""
        return self.gather_lines(lines if self.main else [])

    def wrap(self, model: nn.Module, captured: bool = False) -> nn.Module:
        """Return the module for training: it autocasts and averages gradients.

        Args:
            model: the module.
            captured: whether graphs hold the averaging. Its streams are those of its construction.
        """
        several = captured and self.world > 1 and self.device.type == "cuda"
        stream = capturing_on(self.device) if several else contextlib.nullcontext()
        with stream, warnings.catch_warnings():
            # torch 2.15 renamed broadcast_buffers; Accelerate still uses the old name.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped: nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def unwrap(self, wrapped: nn.Module) -> nn.Module:
        """Return the plain module, which computes in float32 again."""
        module: nn.Module = self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        return module

    def synchronizing(self, wrapped: nn.Module | None, now: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the gradients of a wrapped module are averaged, or only added up so far.

        Args:
            wrapped: the module, from `wrap`.
            now: whether to average what was added up, with the gradient of the block.
        """
        if now or self.world == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self.accelerator.no_sync(wrapped)
        return context

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average the gradients of parameters that are not part of a wrapped module."""
        if self.world == 1 or not parameters:
            return
        # A parameter without a gradient on every process gets none: momentum must not move it.
        present = self.total([float(parameter.grad is not None) for parameter in parameters])
        for parameter, count in zip(parameters, present, strict=True):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                # In place: a graph may read the gradient from where it is.
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, "mean"))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over processes."""
        if self.world > 1:
            for tensor in tensors:
                tensor.copy_(self.accelerator.reduce(tensor, "mean"))

    def average_buffers(self, model: nn.Module) -> None:
        """Average floating-point buffers (running statistics), so that all processes agree."""
        if self.world == 1:
            return
        with torch.no_grad():
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    def synchronize(self, memories: Iterable[Memory]) -> None:
        """Exchange the values that the processes wrote into per-sample memories."""
        for memory in memories:
            if self.world == 1:
                memory.forget_writes()
            else:
                memory.synchronize(self.gather)


def resolve_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu" for a device option.

    Raises:
        RunError: the requested device is not available.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, here in present.items() if here)
    if not present[device]:
        raise RunError(f'train.device = "{device}" is not available here; use "auto" or "cpu"')
    return device


def start(device: str, precision: str, captured: bool = False) -> Processes:
    """Set up Accelerate for a run.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32" or "bfloat16".
        captured: whether graphs shall hold what several processes exchange.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    # Accelerate keeps its settings for the lifetime of the process, but a notebook trains more than once.
    AcceleratorState._reset_state()
    device = resolve_device(device)
    shared: dict[str, Any] = PartialState._shared_state
    if shared and (shared["device"].type != device):
        PartialState._reset_state()
    # Attacks and multiple views run several forwards before one backward: buffers that were
    # broadcast in between would change under the graph.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False)
    mixed = "bf16" if precision == "bfloat16" else "no"
    if captured:  # torch's notes on CUDA graphs ask for it, before the processes meet
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    return Processes(Accelerator(cpu=device == "cpu", mixed_precision=mixed, kwargs_handlers=[handler]))


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Evaluate a model in float32 for a block.

    Accelerate puts an autocasting `forward` on the instance that it prepared, and an exported module may
    contain that instance. The original `forward` is restored for the block. TensorFloat-32 is disabled as
    well, since it is not float32.
    """
    patched = [
        (module, module.__dict__["forward"])
        for module in model.modules()
        if {"forward", "_original_forward"} <= module.__dict__.keys()
    ]
    before = float32_products()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for module, _ in patched:
            module.__dict__["forward"] = module.__dict__["_original_forward"]
        yield
    finally:
        set_float32_products(before)
        for module, forward in patched:
            module.__dict__["forward"] = forward
