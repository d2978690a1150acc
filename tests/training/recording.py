"""A stand-in for CUDA graphs on the CPU: it records the operations of a function, and repeats them.

As with a CUDA graph, Python runs once, when the function is recorded, and its numbers are frozen then.
Neither tensors nor generators change meanwhile, what is returned keeps its address, and what would wait for
a device is refused. A replay works on the same tensors with the present state of the generators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

Result = TypeVar("Result")
# What makes a device wait, as far as a CPU shows it; the last one makes a tensor of numbers of Python.
WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "lift_fresh"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Its schema does not state that it writes the running statistics.
SECRETLY = {
    "native_batch_norm": {"running_mean", "running_var"},
    "allreduce_": {"tensors"},
    "broadcast_": {"tensors"},
    "_allgather_base_": {"output_tensor"},
}
_C: Any = torch._C


class Waits(RuntimeError):
    """An operation that waits for the device was called while a function was recorded."""


class Call(NamedTuple):
    """An operation with its arguments, and which of its results are new tensors."""

    operation: Any
    args: Any
    kwargs: Any
    new: list[tuple[int, Tensor]]
    grad: bool


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def at(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def finish(result: Any) -> None:
    """Wait for what processes exchange: on a GPU, the stream would."""
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.ScriptObject) and "Work" in str(leaf._type()):
            _C._distributed_c10d.Work.unbox(leaf).wait()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run operations, record them, and keep what they overwrite."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call | Callable[[], None]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.born: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "profiler":
            return func(*args, **kwargs)
        masks = name in INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1]))
        if name in WAITS or masks:
            raise Waits(f"{name} waits for the device")
        written = self.written(func, name, args, kwargs)
        result = func(*args, **kwargs)
        given = {at(tensor) for tensor in tensors((args, kwargs))}
        new = [(place, tensor) for place, tensor in enumerate(tensors(result)) if at(tensor) not in given]
        self.born.update(at(tensor) for _, tensor in new)
        if new or written:  # the rest are views
            self.calls.append(Call(func, args, kwargs, new, torch.is_grad_enabled()))
        return result

    def written(self, func: Any, name: str, args: Any, kwargs: Any) -> bool:
        """Keep what a call is about to overwrite, and return whether it writes at all."""
        written = False
        for number, argument in enumerate(func._schema.arguments):
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            secretly = argument.name in SECRETLY.get(name, ())
            if secretly or (argument.alias_info is not None and argument.alias_info.is_write):
                written = True
                for tensor in tensors(value):
                    storage = tensor.untyped_storage()
                    if at(tensor) not in self.born | self.before.keys():
                        self.before[at(tensor)] = (storage, storage.clone())  # type: ignore[no-untyped-call]
        return written


@dataclass
class Recording:
    """Repeats recorded operations."""

    calls: list[Call | Callable[[], None]]
    results: list[Tensor]
    generators: Sequence[torch.Generator]
    replays: int = 0

    def replay(self) -> None:
        addresses = [tensor.data_ptr() for tensor in self.results]
        for call in self.calls:
            if not isinstance(call, Call):  # between two parts of the graph
                call()
                continue
            with _C._AutoDispatchBelowAutograd(), torch.set_grad_enabled(call.grad):
                results = call.operation(*call.args, **call.kwargs)
                finish(results)
                for place, tensor in call.new:
                    tensor.copy_(tensors(results)[place])
        assert addresses == [tensor.data_ptr() for tensor in self.results]
        self.replays += 1


@dataclass
class Recordings:
    """Captures functions by recording them.

    Attributes:
        generators: as for CUDA graphs.
        made: the recordings so far.
        waits: what an observed block shall have waited for.
    """

    generators: Sequence[torch.Generator]
    made: list[Recording] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    blocks: int = 0
    recorder: Recorder | None = None

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        self.blocks += 1
        yield

    @contextlib.contextmanager
    def observed(self) -> Iterator[list[str]]:
        found: list[str] = []
        yield found
        found += self.waits

    def unobserved(self, work: Callable[[], None]) -> None:
        work()

    def between(self, work: Callable[[], None]) -> None:
        assert self.recorder is not None
        self.recorder.calls.append(work)

    def capture(self, function: Callable[[], Result]) -> tuple[Recording, Result]:
        generators = [*self.generators, torch.default_generator]
        states = [generator.get_state() for generator in generators]
        self.recorder = recorder = Recorder()
        try:
            with recorder:
                result = function()
        finally:
            for storage, value in recorder.before.values():
                storage.copy_(value)
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
        self.made.append(Recording(recorder.calls, tensors(vars(result)), self.generators))
        return self.made[-1], result
