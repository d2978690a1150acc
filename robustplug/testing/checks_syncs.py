"""A check that updates can be captured as a CUDA graph; it runs on the CPU."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from ..core.method import needs_sync
from .bench import Bench, Subject, leaves, require, skip_unless

READS = "waits for a value (keep it a tensor: torch.where, arithmetic with masks)"
SHAPES = "makes a shape that depends on data (keep all rows, and choose between values by torch.where)"
COPIES = (
    "copies from the host (make constants by torch.full or torch.arange with device=…, and keep tables in "
    "the method's state)"
)
# Of many findings, so many are listed.
LISTED = 5

# Operators that a CUDA device cannot run without the host, by what makes them so. Those that only run into
# one of these are found by it.
_OPERATORS: Mapping[str, str] = {
    **dict.fromkeys(
        ("_local_scalar_dense", "equal", "allclose", "_linalg_check_errors", "multinomial"), READS
    ),
    **dict.fromkeys(("nonzero", "nonzero_numpy", "masked_select", "bincount", "repeat_interleave"), SHAPES),
    **dict.fromkeys(("_unique", "_unique2", "unique_dim"), SHAPES),
    **dict.fromkeys(("unique_consecutive", "unique_dim_consecutive"), SHAPES),
    "lift_fresh": COPIES,
}
_INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put")
# Functions that reach no operator on the CPU, but copy from the device elsewhere.
_TO_HOST = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu)
_TO_DEVICE = (Tensor.to, torch.as_tensor, torch.asarray)
_INDEXED = {Tensor.__getitem__: "tensor[…]", Tensor.__setitem__: "tensor[…] = …"}
_SPELLED = {
    "__bool__": "bool(tensor)",
    "__float__": "float(tensor)",
    "__int__": "int(tensor)",
    "__index__": "a tensor as an index",
    "__contains__": "… in tensor",
    "__format__": "a tensor in a text",
}

_PACKAGE = Path(__file__).parents[1]
_ENGINE = tuple(f"{_PACKAGE / room}{os.sep}" for room in ("core", "training"))
_KIT = (__file__, str(Path(__file__).with_name("bench.py")))
# Where installed packages are, and Python's own modules.
_LIBRARIES = (f"{Path(torch.__file__).parents[1]}{os.sep}", f"{sysconfig.get_path('stdlib')}{os.sep}", "<")


def _place(package: str) -> str:
    """Return file and line of the innermost code of a package or of no library, else of the engine."""
    frame: FrameType | None = sys._getframe(1)
    engine = ""
    while frame is not None:
        file, place = frame.f_code.co_filename, f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if file.startswith(package) or not file.startswith((*_LIBRARIES, *_ENGINE, *_KIT)):
            return place
        if file == _KIT[1]:  # what called the kit is no component
            break
        engine = engine or (place if file.startswith(_ENGINE) else "")
        frame = frame.f_back
    return engine


class HostSyncs:
    """Note the operations of a block that a CUDA graph cannot hold, and where the code is that runs them.

    Args:
        package: folder of the code that is watched.
        known: tensors that are on the device, as opposed to those that a component has made for itself.
    """

    def __init__(self, package: str, known: list[Tensor]) -> None:
        self.package = package
        self.found: dict[str, None] = {}
        self.function = ""
        self.quiet = False
        self._known = {_storage(tensor) for tensor in known}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a block."""
        with _Functions(self), _Operators(self):
            yield

    def note(self, operation: str, reason: str) -> None:
        """Note an operation."""
        if not self.quiet:
            self.found[f"{_place(self.package)}: {operation} {reason}"] = None

    def is_foreign(self, value: Any) -> bool:
        """Return whether a value is a tensor that nothing has brought to the device."""
        return isinstance(value, Tensor) and _storage(value) not in self._known

    def made(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Note that an operator made tensors; a view of a tensor is where the tensor is."""
        shared = {_storage(tensor) for tensor in inputs}
        self._known |= {_storage(tensor) for tensor in outputs} - shared


def _storage(tensor: Tensor) -> int:
    """Return a number that tensors with the same memory share."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else id(tensor)


class _Functions(TorchFunctionMode):
    """Note calls that reach no operator on the CPU, and know the function that an operator is run for."""

    def __init__(self, syncs: HostSyncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        syncs, kwargs = self.syncs, kwargs or {}
        name = str(resolve_name(func) or getattr(func, "__name__", func))
        syncs.function = _INDEXED.get(func) or _SPELLED.get(name.rpartition(".")[2], name)
        if func in _INDEXED:
            if _has_sequence(args[1]):
                syncs.note(syncs.function, COPIES)
        elif func in _TO_HOST or (func is Tensor.to and "cpu" in (*args[1:2], kwargs.get("device"))):
            syncs.note(syncs.function, READS)
        elif func in _TO_DEVICE and _names_device(args[1:], kwargs) and syncs.is_foreign(args[0]):
            syncs.note(syncs.function, COPIES)
        # With a number of classes, one_hot looks at its values on the CPU only.
        syncs.quiet = func is F.one_hot and kwargs.get("num_classes", args[1] if len(args) > 1 else -1) > 0
        try:
            result = func(*args, **kwargs)
            if func is Tensor.new_tensor or (func is torch.tensor and kwargs.get("device") is not None):
                syncs.made([], [result])
            return result
        finally:
            syncs.function, syncs.quiet = "", False


def _names_device(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    given = (*args, kwargs.get("device"), kwargs.get("other"))
    return any(isinstance(value, torch.device | str | Tensor) for value in given)


def _has_sequence(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) or (type(part).__module__ == "numpy" and part.ndim) for part in parts)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note operators that need the host."""

    def __init__(self, syncs: HostSyncs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.syncs = syncs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        syncs, kwargs = self.syncs, kwargs or {}
        name = func.overloadpacket.__name__
        reason = _OPERATORS.get(name)
        # A number that is written to an index is lifted on the CPU only; sequences in one are noted above.
        if name == "lift_fresh" and syncs.function in _INDEXED.values():
            reason = None
        if name == "repeat_interleave" and kwargs.get("output_size") is not None:
            reason = None
        if name in _INDEXING and any(each.dtype in (torch.bool, torch.uint8) for each in leaves(args[1])):
            reason = SHAPES
        if reason is not None:
            syncs.note(syncs.function or f"torch.ops.aten.{name}", reason)
        result = func(*args, **kwargs)
        syncs.made(leaves([*args, *kwargs.values()]), leaves(result))
        return result


def host_syncs(bench: Bench, package: str) -> list[str]:
    """Return what keeps the updates of a short run from being captured, each with its place.

    Args:
        bench: what is trained.
        package: folder of the code that is watched.
    """
    state = bench.method.state
    known = [*bench.model.parameters(), *bench.model.buffers(), *leaves(dict(state.local()))]
    syncs = HostSyncs(package, [*known, *state.parameters(), *state.buffers()])
    for step in bench.steps():
        batch = step.batch
        syncs.made([], leaves([batch.x, batch.y, batch.index, batch.info]))
        bench.update(step, syncs.watching)
        # The first updates run eagerly: they may make what the later ones use.
        if (step.progress.epoch, step.progress.batch) == (0, 0):
            syncs.found.clear()
    return list(syncs.found)


def updates_need_no_host(subject: Subject) -> None:
    """Run updates with fixed shapes and without waiting for the device, or declare needs_sync = True."""
    bench = Bench(subject)
    skip_unless(not needs_sync(bench.method), "it declares needs_sync: its updates run eagerly")
    found = host_syncs(bench, _folder(subject))
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    listed = "; ".join(found[:LISTED])
    require(not found, f"an update cannot be captured as a CUDA graph: {listed}{more}")


def _folder(subject: Subject) -> str:
    """Return the folder of the plugin that offers a component."""
    module = sys.modules[getattr(subject.component.load(), "__module__", __name__)]
    return str(Path(module.__file__ or "").parent)
