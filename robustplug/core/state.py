"""The state of a method: per-sample memory, learnable parameters, buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn


class PerSample(nn.Module):
    """Store one number for every training sample, keyed by `batch.index`.

    The values that a process writes in a step reach all processes after that step.

    Args:
        size: number of training samples.
        initial: value before the first write.
    """

    values: Tensor

    def __init__(self, size: int, initial: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((size,), float(initial)))
        self._written: list[Tensor] = []

    def read(self, index: Tensor) -> Tensor:
        """Return the numbers of some samples, float32 (N,)."""
        return self.values[index]

    def write(self, index: Tensor, values: Tensor) -> None:
        """Set the numbers of some samples; both (N,). Of a sample that occurs twice, the last one counts."""
        self._set(index, values.to(self.values.dtype))
        self._written.append(index)

    def _set(self, index: Tensor, values: Tensor) -> None:
        # Where a sample occurs twice, both rows write the same number: on a GPU their order is undefined.
        rows = torch.arange(len(index), device=index.device)
        last = torch.zeros(len(self.values), dtype=torch.int64, device=index.device)
        last.scatter_reduce_(0, index, rows, "amax")
        self.values[index] = values[last[index]]

    def synchronize(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Exchange the values that were written since the last call.

        Args:
            gather: function that concatenates a tensor's rows over all processes, whatever their number.
        """
        if self._written:
            index = torch.cat(self._written)
            self._set(gather(index), gather(self.values[index]))
        self._written.clear()

    def swap_writes(self, written: list[Tensor]) -> list[Tensor]:
        """Put a record of writes, the indices, in the place of the present one, which is returned."""
        before, self._written = self._written, written
        return before

    def forget_writes(self) -> None:
        """Drop the record of writes; for a run with a single process, which has nothing to exchange."""
        self._written.clear()


class MethodState(nn.Module):
    """Hold a method's memory; all of it is saved in checkpoints.

    Register nn.Parameters and buffers as on any module; they are the same on all processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._local: dict[str, Tensor] = {}
        self._frozen: list[nn.Module] = []

    def hold(self, name: str, network: nn.Module) -> None:
        """Add another network, such as a teacher: frozen, and in eval mode, also after `train`.

        In training, only parameters that a parameter group names are unfrozen.
        """
        self.add_module(name, network.requires_grad_(False).eval())
        self._frozen.append(network)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the networks that are held."""
        super().train(mode)
        for network in self._frozen:
            network.eval()
        return self

    def held(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the networks that are held, also those of states inside."""
        for module in self.modules():
            if isinstance(module, MethodState):
                for network in module._frozen:
                    yield from network.parameters()

    def per_sample(self, name: str, size: int, initial: float = 0.0) -> PerSample:
        """Add a memory of one number for each training sample."""
        memory = PerSample(size, initial)
        self.add_module(name, memory)
        return memory

    def memories(self) -> Iterator[PerSample]:
        """Yield the per-sample memories."""
        return (module for module in self.modules() if isinstance(module, PerSample))

    def get_local(self, name: str) -> Tensor | None:
        """Return a tensor that each process has for itself, or None if it is not set."""
        return self._local.get(name)

    def set_local(self, name: str, value: Tensor) -> None:
        """Set a tensor that each process has for itself, such as the perturbation of Free AT."""
        part, dot, rest = name.partition(".")
        inner = self._modules.get(part)
        if dot and isinstance(inner, MethodState):
            inner.set_local(rest, value)
        else:
            self._local[name] = value

    def local(self) -> Mapping[str, Tensor]:
        """Return all tensors that each process has for itself; those of a state inside are "PART.NAME"."""
        found = dict(self._local)
        for part, module in self._modules.items():
            if isinstance(module, MethodState):
                found |= {f"{part}.{name}": value for name, value in module.local().items()}
        return found
